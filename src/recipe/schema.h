// The typed description of what a recipe may say: one source for YAML validation, --help, the
// resolved configuration and the docs. It knows no model and no pass; each of those gives its own
// Schema, and a program puts them together with section(). Free of any YAML library on purpose:
// the Pass interface includes it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lithe::recipe {

enum class Type { boolean, integer, number, string, path, string_list, number_list };

// "integer", "list of numbers", ...: as messages, help and docs print it.
std::string_view type_name(Type type);

// monostate: no default; the key is then optional, or must be given if `required`.
using Default = std::variant<std::monostate, bool, int64_t, double, std::string,
                             std::vector<std::string>, std::vector<double>>;

// One key. A scalar where a list is wanted counts as a list of one. `min` and `max` (inclusive)
// hold for integers, numbers and each element of a list of numbers; `choices` for integers,
// strings, paths and each element of a list of strings.
struct Option {
  std::string key = {};  // dotted: "optimizer.lr"
  Type type = Type::string;
  Default fallback = {};
  std::string help = {};
  std::optional<double> min = {};
  std::optional<double> max = {};
  std::vector<std::string> choices = {};
  bool required = false;
};

// A node of the key tree. An optional section is on when a recipe gives it (a mapping, or `on`) and
// off when it is absent, null, `off` or `false`.
struct Section {
  std::string key;
  std::string help;
  bool optional = false;
};

class Schema {
 public:
  // Refuses (UsageError) a malformed or known key and a default that breaks the option's own rules.
  // "base" is kept for the library: it names the recipe that a recipe builds on.
  Schema& add(Option option);

  // Adds every option and section of `options` under `prefix.`.
  Schema& section(const std::string& prefix, const Schema& options, const std::string& help,
                  bool optional = false);

  // nullptr when the key is not an option (not a section).
  const Option* find(const std::string& key) const;
  const Section* find_section(const std::string& key) const;

  const std::vector<Option>& options() const { return options_; }
  const std::vector<Section>& sections() const { return sections_; }

  // Full keys of the options and sections right under a section, in the order added; "" is the top.
  const std::vector<std::string>& children(const std::string& section) const;

  // The known key or section nearest to a misspelt one, or "" when none is near: the last part
  // against its neighbours, the full dotted key against all, and the same last part elsewhere.
  std::string nearest(const std::string& key) const;

  // Every key with type, default, range or choices and help, in aligned columns.
  std::string help() const;
  // The same as a Markdown table.
  std::string markdown() const;

 private:
  void add_section(const std::string& key, const std::string& help, bool optional);
  void add_children(const std::string& prefix, const Schema& options, const std::string& at);
  void link(const std::string& key);

  std::vector<Option> options_;
  std::vector<Section> sections_;
  std::map<std::string, size_t> option_index_;
  std::map<std::string, size_t> section_index_;
  std::map<std::string, std::vector<std::string>> children_;
};

}  // namespace lithe::recipe
