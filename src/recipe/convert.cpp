#include "recipe/convert.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <system_error>

#include "recipe/format.h"
#include "recipe/nearest.h"
#include "tensor/core/error.h"

namespace lithe::recipe {
namespace {

std::string wanted(const Option& option) {
  std::string text =
      fmt::format("{}{}", option.type == Type::integer ? "an " : "a ", type_name(option.type));
  const std::string range = range_text(option);
  return range.empty() ? text : fmt::format("{} ({})", text, range);
}

[[noreturn]] void refuse_type(const Option& option, const Node& node, const Source& source) {
  throw UsageError("recipe", "{}: key '{}': found {}, wanted {}", source.at(node.line), option.key,
                   describe(node), wanted(option));
}

// from_chars takes no '+'.
std::string_view without_plus(std::string_view text) {
  const bool drop = text.size() > 1 && text[0] == '+' && text[1] != '-';
  return drop ? text.substr(1) : text;
}

int64_t as_integer(const Option& option, const Node& node, const Source& source) {
  const std::string_view text = without_plus(node.text);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (node.quoted || text.empty() || end != text.data() + text.size() ||
      error == std::errc::invalid_argument) {
    refuse_type(option, node, source);
  }
  if (error == std::errc::result_out_of_range) {
    throw UsageError("recipe", "{}: key '{}': {} does not fit in 64 bits", source.at(node.line),
                     option.key, excerpt(node.text));
  }
  return value;
}

double as_number(const Option& option, const Node& node, const Source& source) {
  const std::string_view text = without_plus(node.text);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = !text.empty() && end == text.data() + text.size();
  // YAML's own spelling, ".inf", is not from_chars'.
  const std::string_view bare = text.starts_with('-') ? text.substr(1) : text;
  const bool dotted = edit_distance(bare, ".inf") == 0 || edit_distance(bare, ".nan") == 0;
  if (node.quoted || (!dotted && (!whole || error == std::errc::invalid_argument))) {
    refuse_type(option, node, source);
  }
  if (dotted || error == std::errc::result_out_of_range || !std::isfinite(value)) {
    throw UsageError("recipe", "{}: key '{}': {} is not a finite 64-bit number",
                     source.at(node.line), option.key, excerpt(node.text));
  }
  return value;
}

template <typename T, typename Read>
std::vector<T> as_list(const Option& option, const Node& node, const Source& source, Read read) {
  std::vector<T> values;
  if (node.kind == Node::Kind::scalar) {
    values.push_back(read(node));
    return values;
  }
  if (node.kind != Node::Kind::list) {
    refuse_type(option, node, source);
  }
  for (const Node& item : node.items) {
    if (item.kind != Node::Kind::scalar) {
      throw UsageError("recipe", "{}: key '{}': found {} in the list, wanted {}",
                       source.at(item.line), option.key, describe(item), wanted(option));
    }
    values.push_back(read(item));
  }
  return values;
}

Default convert_scalar(const Option& option, const Node& node, const Source& source) {
  if (node.kind != Node::Kind::scalar) {
    refuse_type(option, node, source);
  }
  switch (option.type) {
    case Type::boolean:
      if (const auto value = as_boolean(node)) {
        return *value;
      }
      refuse_type(option, node, source);
    case Type::integer:
      return as_integer(option, node, source);
    case Type::number:
      return as_number(option, node, source);
    default:
      return node.text;
  }
}

}  // namespace

Default convert(const Option& option, const Node& node, const Source& source) {
  if (node.kind == Node::Kind::null) {
    const bool has_default = !std::holds_alternative<std::monostate>(option.fallback);
    if (!option.required && !has_default) {
      return {};
    }
    throw UsageError("recipe", "{}: key '{}': found no value, wanted {}{}", source.at(node.line),
                     option.key, wanted(option),
                     has_default ? "; leave the key out for " + yaml_text(option.fallback) : "");
  }
  Default value;
  if (option.type == Type::string_list) {
    value = as_list<std::string>(option, node, source, [](const Node& item) { return item.text; });
  } else if (option.type == Type::number_list) {
    value = as_list<double>(option, node, source,
                            [&](const Node& item) { return as_number(option, item, source); });
  } else {
    value = convert_scalar(option, node, source);
  }
  return value;
}

std::optional<bool> as_boolean(const Node& node) {
  if (node.kind == Node::Kind::scalar && !node.quoted) {
    for (const char* word : {"true", "on", "yes"}) {
      if (edit_distance(node.text, word) == 0) {
        return true;
      }
    }
    for (const char* word : {"false", "off", "no"}) {
      if (edit_distance(node.text, word) == 0) {
        return false;
      }
    }
  }
  return std::nullopt;
}

std::string describe(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "no value";
    case Node::Kind::scalar:
      return fmt::format("{} '{}'", node.quoted ? "the quoted text" : "the text",
                         excerpt(node.text));
    case Node::Kind::list:
      return fmt::format("a list of {}", node.items.size());
    case Node::Kind::map:
      return "a mapping";
  }
  return "something else";
}

}  // namespace lithe::recipe
