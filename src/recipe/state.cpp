#include "recipe/state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "recipe/convert.h"
#include "recipe/expand.h"
#include "recipe/format.h"
#include "tensor/core/error.h"

namespace lithe::recipe {
namespace {

// Calls `visit` with "a", "a.b", ... for "a.b.c", and with the key itself when `whole`.
template <typename Visit>
void each_prefix(const std::string& key, bool whole, Visit visit) {
  for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', dot + 1)) {
    visit(key.substr(0, dot));
  }
  if (whole) {
    visit(key);
  }
}

template <typename Value>
void erase_below(std::map<std::string, Value>& map, const std::string& prefix) {
  for (auto at = map.lower_bound(prefix); at != map.end() && at->first.starts_with(prefix);) {
    at = map.erase(at);
  }
}

std::string names_in(const Schema& schema, const std::string& section) {
  return fmt::format("{}", fmt::join(schema.children(section), ", "));
}

Default expanded(const Option& option, Default value, const std::string& where) {
  const std::string place = fmt::format("{}: key '{}'", where, option.key);
  if (auto* text = std::get_if<std::string>(&value)) {
    *text = expand(*text, place);
  } else if (auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    for (std::string& text_item : *texts) {
      text_item = expand(text_item, place);
    }
  }
  return value;
}

}  // namespace

void Recipe::State::apply_file(const Node& root, const Source& source) {
  if (root.kind == Node::Kind::null) {
    return;  // an empty recipe: all defaults
  }
  if (root.kind != Node::Kind::map) {
    throw UsageError("recipe", "{}: found {}, wanted a mapping of keys to values",
                     source.at(root.line), describe(root));
  }
  apply_items("", root, source);
}

void Recipe::State::apply_override(const std::string& text) {
  const Source source{text, true};
  const size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos) {
    throw UsageError("recipe", "{}: an override reads key.path=value", source.at(1));
  }
  const std::string key = text.substr(0, equals);
  if (key == "base") {
    throw UsageError("recipe", "{}: 'base' is for recipe files", source.at(1));
  }
  std::string value = text.substr(equals + 1);
  if (value.starts_with('*') && value.find('\'') == std::string::npos) {
    value = "'" + value + "'";  // on a command line a leading * is a pattern, never a YAML alias
  }
  apply(key, read_document(value, source), source);
}

void Recipe::State::apply(const std::string& key, const Node& node, const Source& source) {
  each_prefix(key, false, [&](const std::string& above) {
    if (const Section* section = schema_.find_section(above); section && section->optional) {
      Switch& state = switches_[above];
      if (!state.on) {
        state = {true, source.at(node.line)};
      }
    }
  });
  if (const Option* option = schema_.find(key)) {
    apply_option(*option, node, source);
  } else if (const Section* section = schema_.find_section(key)) {
    apply_section(*section, node, source);
  } else {
    refuse_unknown(key, source.at(node.key_line));
  }
}

void Recipe::State::apply_option(const Option& option, const Node& node, const Source& source) {
  Default value = convert(option, node, source);
  // Strings wait for finish(): their choices hold for what the environment makes of them.
  const bool textual =
      option.type == Type::string || option.type == Type::path || option.type == Type::string_list;
  if (!textual) {
    if (const auto broken = violation(option, value)) {
      throw UsageError("recipe", "{}: key '{}': {}", source.at(node.line), option.key, *broken);
    }
  }
  if (std::holds_alternative<std::monostate>(value)) {
    given_.erase(option.key);
    where_.erase(option.key);
    return;
  }
  given_[option.key] = std::move(value);
  const bool scalar = node.kind == Node::Kind::scalar;
  where_[option.key] = source.at(scalar ? node.line : node.key_line);
}

void Recipe::State::apply_section(const Section& section, const Node& node, const Source& source) {
  const std::string where = source.at(node.key_line);
  const auto word = as_boolean(node);
  if (section.optional && (node.kind == Node::Kind::null || word == false)) {
    switch_off(section.key, where);
    return;
  }
  if (section.optional && (node.kind == Node::Kind::map || word == true)) {
    switches_[section.key] = {true, where};
  }
  if (node.kind == Node::Kind::map) {
    where_[section.key] = where;
    apply_items(section.key, node, source);
  } else if (node.kind != Node::Kind::null && !(section.optional && word == true)) {
    throw UsageError("recipe", "{}: '{}' is a section: found {}, wanted a mapping{} with {}", where,
                     section.key, describe(node), section.optional ? ", on or off," : "",
                     names_in(schema_, section.key));
  }
}

void Recipe::State::apply_items(const std::string& prefix, const Node& map, const Source& source) {
  for (const Node& item : map.items) {
    if (prefix.empty() && item.key == "base") {
      continue;  // followed by load()
    }
    if (item.key.find('.') != std::string::npos) {
      throw UsageError("recipe", "{}: key '{}' has a dot; in YAML write nested mappings",
                       source.at(item.key_line), excerpt(item.key));
    }
    apply(prefix.empty() ? item.key : prefix + "." + item.key, item, source);
  }
}

void Recipe::State::switch_off(const std::string& section, const std::string& where) {
  erase_below(given_, section + ".");
  erase_below(where_, section + ".");
  erase_below(switches_, section + ".");
  where_.erase(section);
  switches_[section] = {false, where};
}

void Recipe::State::refuse_unknown(const std::string& key, const std::string& where) const {
  each_prefix(key, false, [&](const std::string& above) {
    if (const Option* option = schema_.find(above)) {
      throw UsageError("recipe", "{}: unknown key '{}': '{}' is not a section but of type {}",
                       where, excerpt(key), above, type_name(option->type));
    }
  });
  if (const std::string near = schema_.nearest(key); !near.empty()) {
    throw UsageError("recipe", "{}: unknown key '{}'; did you mean '{}'?", where, excerpt(key),
                     near);
  }
  // The nearest section that exists tells what could stand here.
  std::string section;
  each_prefix(key, false, [&](const std::string& above) {
    if (schema_.find_section(above)) {
      section = above;
    }
  });
  throw UsageError("recipe", "{}: unknown key '{}'; known here: {}", where, excerpt(key),
                   names_in(schema_, section));
}

void Recipe::State::finish() {
  values_.clear();
  for (const Option& option : schema_.options()) {
    const size_t dot = option.key.rfind('.');
    if (dot != std::string::npos && !enabled(option.key.substr(0, dot))) {
      continue;
    }
    const auto at = given_.find(option.key);
    Default value = at == given_.end() ? option.fallback : at->second;
    if (std::holds_alternative<std::monostate>(value)) {
      if (option.required) {
        throw UsageError("recipe", "{}: missing key '{}' ({}): {}", missing_at(option.key),
                         option.key, type_name(option.type), option.help);
      }
      continue;
    }
    value = expanded(option, std::move(value), where(option.key));
    const auto* text = std::get_if<std::string>(&value);
    if (option.type == Type::path && text != nullptr && text->empty() && !option.required &&
        std::holds_alternative<std::monostate>(option.fallback)) {
      continue;  // as "${VAR:-}" without VAR
    }
    if (const auto broken = violation(option, value)) {
      throw UsageError("recipe", "{}: key '{}': {}", where(option.key), option.key, *broken);
    }
    values_[option.key] = std::move(value);
  }
}

// The innermost section that some text wrote down, or the recipe itself.
std::string Recipe::State::missing_at(const std::string& key) const {
  std::string place = name_;
  each_prefix(key, false, [&](const std::string& above) {
    const std::string known = where(above);
    place = known == "default" ? place : known;
  });
  return place;
}

const Default* Recipe::State::value(const std::string& key) const {
  const auto at = values_.find(key);
  return at == values_.end() ? nullptr : &at->second;
}

const Default& Recipe::State::required_value(const std::string& key) const {
  const Default* known = value(option(key).key);
  if (!known) {
    const size_t dot = key.rfind('.');
    const bool off = dot != std::string::npos && !enabled(key.substr(0, dot));
    throw UsageError("recipe", "{}: key '{}' has no value{}; give one", name_, key,
                     off ? ", its section is off" : "");
  }
  return *known;
}

bool Recipe::State::enabled(const std::string& section) const {
  bool on = true;
  each_prefix(section, true, [&](const std::string& above) {
    if (const Section* known = schema_.find_section(above); known && known->optional) {
      const auto at = switches_.find(above);
      on = on && at != switches_.end() && at->second.on;
    }
  });
  return on;
}

std::string Recipe::State::where(const std::string& key) const {
  if (const auto at = where_.find(key); at != where_.end()) {
    return at->second;
  }
  const auto at = switches_.find(key);
  return at == switches_.end() ? "default" : at->second.where;
}

std::string Recipe::State::yaml(const std::string& section, int indent) const {
  std::string text;
  for (const std::string& key : schema_.children(section)) {
    const std::string line =
        std::string(static_cast<size_t>(indent), ' ') + key.substr(key.rfind('.') + 1) + ":";
    if (const Default* known = value(key)) {
      text += line + " " + yaml_text(*known) + "\n";
    } else if (const Section* inner = schema_.find_section(key); inner && enabled(key)) {
      const std::string body = yaml(key, indent + 2);
      if (!body.empty()) {
        text += line + "\n" + body;
      } else if (inner->optional) {
        text += line + " on\n";
      }
    }
  }
  return text;
}

const Option& Recipe::State::option(const std::string& key) const {
  const Option* known = schema_.find(key);
  if (!known) {
    const std::string near = schema_.nearest(key);
    throw UsageError("recipe",
                     "{}: the program asks for key '{}', which its schema does not have{}", name_,
                     key, near.empty() ? "" : fmt::format("; nearest: '{}'", near));
  }
  return *known;
}

void Recipe::State::check_section(const std::string& key) const {
  if (!schema_.find_section(key)) {
    throw UsageError("recipe",
                     "{}: the program asks for section '{}', which its schema does not "
                     "have",
                     name_, key);
  }
}

}  // namespace lithe::recipe
