// What a recipe's files and overrides say, collected key by key and checked against the schema.
#pragma once

#include <map>
#include <string>

#include "recipe/document.h"
#include "recipe/recipe.h"

namespace lithe::recipe {

class Recipe::State {
 public:
  State(const Schema& schema, std::string name) : schema_(schema), name_(std::move(name)) {}

  // A file's top-level mapping. Later calls override earlier ones, key by key.
  void apply_file(const Node& root, const Source& source);
  // One "key.path=value".
  void apply_override(const std::string& text);
  // Defaults, environment, required keys, ranges and choices of what is on.
  void finish();

  const Schema& schema() const { return schema_; }
  // nullptr when the option has no value or its section is off.
  const Default* value(const std::string& key) const;
  // The value; UsageError when there is none.
  const Default& required_value(const std::string& key) const;
  bool given(const std::string& key) const { return given_.contains(key); }
  bool enabled(const std::string& section) const;
  std::string where(const std::string& key) const;
  std::string yaml(const std::string& section, int indent) const;

  // UsageErrors for a caller that asks for what the schema does not have.
  const Option& option(const std::string& key) const;
  void check_section(const std::string& key) const;

 private:
  struct Switch {
    bool on = false;
    std::string where;
  };

  void apply(const std::string& key, const Node& node, const Source& source);
  void apply_option(const Option& option, const Node& node, const Source& source);
  void apply_section(const Section& section, const Node& node, const Source& source);
  void apply_items(const std::string& prefix, const Node& map, const Source& source);
  void switch_off(const std::string& section, const std::string& where);
  [[noreturn]] void refuse_unknown(const std::string& key, const std::string& where) const;
  std::string missing_at(const std::string& key) const;

  Schema schema_;
  std::string name_;
  std::map<std::string, Default> given_;
  std::map<std::string, Default> values_;  // after finish(): expanded, with defaults
  std::map<std::string, std::string> where_;
  std::map<std::string, Switch> switches_;
};

}  // namespace lithe::recipe
