// A recipe: the YAML file that tells a program what to do, checked against a Schema, with the
// `base:` recipes it builds on and the command line's `key.path=value` overrides. What comes later
// wins, key by key: base, file, command line.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "recipe/schema.h"

namespace lithe::recipe {

class Recipe {
 public:
  // Reads `path` and the recipes its `base:` names (relative to the file that names them, at most 8
  // deep). FileError for a file that is missing, unreadable, not a regular file or over 1 MiB;
  // UsageError with "file:line:" or "command line: key=value:" for everything in it that the schema
  // does not allow.
  static Recipe load(const std::string& path, const Schema& schema,
                     std::span<const std::string> overrides = {});

  // The same for text in memory; `name` stands for the file in messages. Never opens a file, so it
  // refuses `base:`.
  static Recipe parse(const std::string& text, const std::string& name, const Schema& schema,
                      std::span<const std::string> overrides = {});

  // Values, given or default. UsageError for a key that is not in the schema or has another type
  // (number() also reads integers, string() also paths), for a key of a section that is off, and
  // for a key that has no value; ask has() or enabled() first where that may be.
  bool boolean(const std::string& key) const;
  int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;
  std::string string(const std::string& key) const;
  std::vector<std::string> strings(const std::string& key) const;
  std::vector<double> numbers(const std::string& key) const;

  bool has(const std::string& key) const;          // given or with a default, its section on
  bool given(const std::string& key) const;        // by a file or the command line
  bool enabled(const std::string& section) const;  // and every section above it

  // "vit.yaml:3", "command line: optimizer.lr=1" or "default": for errors that a caller finds
  // later. Also takes a section.
  std::string where(const std::string& key) const;

  // The same recipe seen from inside a section: section("optimizer").number("lr").
  Recipe section(const std::string& prefix) const;

  // YAML of every value, given or default, in the schema's order; sections that are off and keys
  // without a value are left out. Loading it gives the same values again.
  std::string resolved() const;

 private:
  class State;
  explicit Recipe(std::shared_ptr<const State> state, std::string prefix = "");

  std::string full(const std::string& key) const { return prefix_ + key; }

  std::shared_ptr<const State> state_;
  std::string prefix_;  // "" or "section."
};

}  // namespace lithe::recipe
