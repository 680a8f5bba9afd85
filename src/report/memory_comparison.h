// What several recipes or runs take, side by side; differences are to the first of them.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "report/run_data.h"

namespace lithe {

// A recipe that was planned, or a run that was made: one column.
struct ComparedRun {
  RunSummary summary;  // of a recipe: name, device and seed, and no metrics or times
  MemoryReport memory;
  bool planned_only = true;
  std::string source;       // the recipe or the folder it was read from
  std::string recipe_yaml;  // resolved; may be empty
};

// The run of a folder, under the folder's name. Throws FileError when summary.json or memory.json
// is missing or damaged.
ComparedRun compared_run(const std::filesystem::path& folder);

// Cuts names to 40 columns and numbers those that come again: "vit", "vit (2)".
void make_names_unique(std::span<ComparedRun> runs);

// A value that takes more or less in one report than in the other, each at its own peak.
struct ValueDifference {
  std::string name;
  int64_t count = 1;  // by layer: of values under this name, in the report that has more of them
  // Nothing where no value has the name; 0 where none of them lives at the peak.
  std::optional<int64_t> first_bytes;
  std::optional<int64_t> bytes;
  MemoryClass first_class = MemoryClass::temporaries;  // of the largest value
  MemoryClass cls = MemoryClass::temporaries;

  int64_t change() const { return bytes.value_or(0) - first_bytes.value_or(0); }
};

// All of them, the largest change first (ties by name). `by_layer`: values whose names differ in
// the numbers of layers alone are one, "encoder.layer.*.output/linear".
std::vector<ValueDifference> values_that_differ(const MemoryReport& first,
                                                const MemoryReport& other, bool by_layer = false);

// A recipe's key whose values are not equal, in the order of the runs; nothing: not set, or an
// empty list.
struct SettingDifference {
  std::string key;
  std::vector<std::optional<std::string>> values;
};

// Of the values and lists of the resolved recipes, without their names; in the order in which keys
// appear. Runs without a recipe take no part: their values are missing.
std::vector<SettingDifference> settings_that_differ(std::span<const ComparedRun> runs);

// `runs`: of each what summary.json has, with planned_only, source, passes, and difference_bytes
// and ratio of the predicted peak to the first; `values_that_differ` of the others, at most 100
// each; `settings_that_differ`.
nlohmann::ordered_json comparison_json(std::span<const ComparedRun> runs);

}  // namespace lithe
