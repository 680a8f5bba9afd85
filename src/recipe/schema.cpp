#include "recipe/schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "recipe/format.h"
#include "recipe/nearest.h"
#include "tensor/core/error.h"

namespace lithe::recipe {
namespace {

constexpr int kDeepestKey = 16;

void check_key(const std::string& key) {
  int parts = 1;
  bool empty_part = true;
  for (const char c : key) {
    if (c == '.') {
      if (empty_part) {
        break;
      }
      ++parts;
      empty_part = true;
    } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-') {
      empty_part = false;
    } else {
      throw UsageError("schema", "key '{}': use letters, digits, '_', '-' and dots", excerpt(key));
    }
  }
  if (empty_part || parts > kDeepestKey) {
    throw UsageError("schema", "key '{}': write 1 to {} names joined by single dots", excerpt(key),
                     kDeepestKey);
  }
  if (key == "base" || key.starts_with("base.")) {
    throw UsageError("schema", "key '{}': 'base' names the recipe a recipe builds on", key);
  }
}

std::string parent_of(const std::string& key) {
  const size_t dot = key.rfind('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

std::string_view leaf_of(std::string_view key) {
  const size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

// Integers serve as numbers, and scalars as lists of one, in defaults as in YAML.
Default normalised(Type type, Default value) {
  if (type == Type::number || type == Type::number_list) {
    if (const auto* integer = std::get_if<int64_t>(&value)) {
      value = static_cast<double>(*integer);
    }
  }
  if (type == Type::number_list && std::holds_alternative<double>(value)) {
    value = std::vector<double>{std::get<double>(value)};
  }
  if (type == Type::string_list && std::holds_alternative<std::string>(value)) {
    value = std::vector<std::string>{std::get<std::string>(std::move(value))};
  }
  return value;
}

bool default_fits(Type type, const Default& value) {
  if (std::holds_alternative<std::monostate>(value)) {
    return true;
  }
  switch (type) {
    case Type::boolean:
      return std::holds_alternative<bool>(value);
    case Type::integer:
      return std::holds_alternative<int64_t>(value);
    case Type::number:
      return std::holds_alternative<double>(value) && std::isfinite(std::get<double>(value));
    case Type::string:
    case Type::path:
      return std::holds_alternative<std::string>(value);
    case Type::string_list:
      return std::holds_alternative<std::vector<std::string>>(value);
    case Type::number_list: {
      const auto* numbers = std::get_if<std::vector<double>>(&value);
      return numbers && std::all_of(numbers->begin(), numbers->end(),
                                    [](double number) { return std::isfinite(number); });
    }
  }
  return false;
}

}  // namespace

std::string_view type_name(Type type) {
  switch (type) {
    case Type::boolean:
      return "boolean";
    case Type::integer:
      return "integer";
    case Type::number:
      return "number";
    case Type::string:
      return "string";
    case Type::path:
      return "path";
    case Type::string_list:
      return "list of strings";
    case Type::number_list:
      return "list of numbers";
  }
  return "unknown";
}

Schema& Schema::add(Option option) {
  check_key(option.key);
  if (find(option.key) || find_section(option.key)) {
    throw UsageError("schema", "key '{}' is added twice", option.key);
  }
  option.fallback = normalised(option.type, std::move(option.fallback));
  if (!default_fits(option.type, option.fallback)) {
    throw UsageError("schema", "key '{}': the default is not a finite {}", option.key,
                     type_name(option.type));
  }
  const bool has_default = !std::holds_alternative<std::monostate>(option.fallback);
  if (option.required && has_default) {
    throw UsageError("schema", "key '{}' is required and has a default; drop one", option.key);
  }
  if (const auto broken = violation(option, option.fallback)) {
    throw UsageError("schema", "key '{}': default: {}", option.key, *broken);
  }
  link(option.key);
  option_index_[option.key] = options_.size();
  options_.push_back(std::move(option));
  return *this;
}

Schema& Schema::section(const std::string& prefix, const Schema& options, const std::string& help,
                        bool optional) {
  check_key(prefix);
  add_section(prefix, help, optional);
  add_children(prefix, options, "");
  return *this;
}

// Depth first, so that the order within the schema stays.
void Schema::add_children(const std::string& prefix, const Schema& options, const std::string& at) {
  for (const std::string& key : options.children(at)) {
    if (const Option* known = options.find(key)) {
      Option option = *known;
      option.key = prefix + "." + key;
      add(std::move(option));
    } else if (const Section* inner = options.find_section(key)) {
      add_section(prefix + "." + key, inner->help, inner->optional);
      add_children(prefix, options, key);
    }
  }
}

// A section known only through its keys may be described later, but not twice.
void Schema::add_section(const std::string& key, const std::string& help, bool optional) {
  if (find(key)) {
    throw UsageError("schema", "section '{}' has the name of an option", key);
  }
  const auto [at, fresh] = section_index_.try_emplace(key, sections_.size());
  if (fresh) {
    link(key);
    at->second = sections_.size();  // link() may have added the sections above this one
    sections_.push_back({key, help, optional});
    return;
  }
  Section& known = sections_[at->second];
  if (!known.help.empty() && !help.empty()) {
    throw UsageError("schema", "section '{}' is added twice", key);
  }
  known.help = help.empty() ? known.help : help;
  known.optional = known.optional || optional;
}

// Hangs a new key into the tree, adding the sections above it.
void Schema::link(const std::string& key) {
  const std::string parent = parent_of(key);
  if (!parent.empty() && !find_section(parent)) {
    add_section(parent, "", false);
  }
  children_[parent].push_back(key);
}

const Option* Schema::find(const std::string& key) const {
  const auto at = option_index_.find(key);
  return at == option_index_.end() ? nullptr : &options_[at->second];
}

const Section* Schema::find_section(const std::string& key) const {
  const auto at = section_index_.find(key);
  return at == section_index_.end() ? nullptr : &sections_[at->second];
}

const std::vector<std::string>& Schema::children(const std::string& section) const {
  static const std::vector<std::string> kNone;
  const auto at = children_.find(section);
  return at == children_.end() ? kNone : at->second;
}

std::string Schema::nearest(const std::string& key) const {
  const std::string parent = parent_of(key);
  const std::string_view leaf = leaf_of(key);
  std::string best;
  size_t best_score = SIZE_MAX;
  const auto consider = [&](const std::string& known) {
    size_t score = SIZE_MAX;
    if (parent_of(known) == parent) {
      const size_t distance = edit_distance(leaf, leaf_of(known));
      score = distance <= edit_limit(leaf) ? 2 * distance : SIZE_MAX;
    } else if (const size_t distance = edit_distance(key, known);
               distance <= std::min<size_t>(3, edit_limit(key))) {
      score = 2 * distance;
    } else if (leaf.size() > 1 && edit_distance(leaf, leaf_of(known)) == 0) {
      score = 3;  // the right name in the wrong section: between one and two edits
    }
    if (score < best_score) {
      best = known;
      best_score = score;
    }
  };
  for (const Option& option : options_) {
    consider(option.key);
  }
  for (const Section& section : sections_) {
    consider(section.key);
  }
  return best;
}

}  // namespace lithe::recipe
