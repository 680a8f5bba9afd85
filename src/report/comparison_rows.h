// A comparison as rows of text, for the terminal and the page alike: one cell for each run. Nothing
// is escaped.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "report/memory_comparison.h"

namespace lithe {

struct ComparisonRow {
  std::string label;
  std::vector<std::string> cells;
  std::optional<MemoryClass> cls = {};  // of a class of memory
};

// What the runs are, bytes by class at the predicted peak, the peaks, their difference and ratio to
// the first. Classes that are empty everywhere are left out.
std::vector<ComparisonRow> memory_rows(std::span<const ComparedRun> runs);

// Final metrics and times, as the runs have them; empty when all are recipes.
std::vector<ComparisonRow> result_rows(std::span<const ComparedRun> runs);

std::vector<ComparisonRow> setting_rows(std::span<const ComparedRun> runs);

// "-576.00 MiB", with a sign for more, too.
std::string format_change(int64_t bytes);

// "576.00 MiB", "not alive" at the peak, or "absent".
std::string format_presence(const std::optional<int64_t>& bytes);

// The class of a value, or "saved activations → temporaries".
std::string class_change(const ValueDifference& value);

// "planned", "finished run", ...
std::string kind_of(const ComparedRun& run);

// "0.473×", the predicted peak of `run` to that of `first`; "–" where the latter is 0.
std::string peak_ratio(const ComparedRun& first, const ComparedRun& run);

}  // namespace lithe
