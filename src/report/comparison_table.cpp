#include "report/comparison_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "report/comparison_rows.h"
#include "report/text_table.h"

namespace lithe {
namespace {

constexpr size_t kMostValues = 10;
constexpr size_t kMostSettings = 20;

using Lines = std::vector<std::vector<std::string>>;

std::string table(const std::string& title, std::span<const ComparedRun> runs,
                  std::span<const ComparisonRow> rows) {
  Lines lines(1, {""});
  std::vector<Align> align = {Align::kLeft};
  for (const ComparedRun& run : runs) {
    lines.front().push_back(printable(run.summary.name));
    align.push_back(Align::kRight);
  }
  for (const ComparisonRow& row : rows) {
    std::vector<std::string>& line = lines.emplace_back(1, printable(row.label));
    for (const std::string& cell : row.cells) {
      line.push_back(printable(cell));
    }
  }
  return title + "\n" + align_columns(lines, align);
}

std::string value_table(const ComparedRun& first, const ComparedRun& run) {
  const std::vector<ValueDifference> values = values_that_differ(first.memory, run.memory, true);
  const int64_t change =
      std::accumulate(values.begin(), values.end(), int64_t{0},
                      [](int64_t sum, const ValueDifference& v) { return sum + v.change(); });
  std::string text = fmt::format("\nValues of {} against {}, each at its own peak: {} in all\n",
                                 printable(run.summary.name), printable(first.summary.name),
                                 format_change(change));
  if (values.empty()) {
    return text + "  none differs\n";
  }
  Lines lines = {{"change", printable(first.summary.name), printable(run.summary.name), "class",
                  "values", ""}};
  for (size_t i = 0; i < std::min(values.size(), kMostValues); ++i) {
    const ValueDifference& value = values[i];
    lines.push_back({format_change(value.change()), format_presence(value.first_bytes),
                     format_presence(value.bytes), class_change(value),
                     fmt::format("{}", value.count), printable(value.name)});
  }
  text += align_columns(lines, {Align::kRight, Align::kRight, Align::kRight, Align::kLeft,
                                Align::kRight, Align::kLeft});
  if (values.size() > kMostValues) {
    text += fmt::format("  and {} smaller ones\n", values.size() - kMostValues);
  }
  return text;
}

std::string passes(std::span<const ComparedRun> runs) {
  Lines lines;
  for (const ComparedRun& run : runs) {
    for (const PassRow& pass : run.memory.passes) {
      lines.push_back({printable(run.summary.name), printable(pass.name), printable(pass.what)});
    }
  }
  return lines.empty()
             ? ""
             : "\nPasses\n" + align_columns(lines, {Align::kLeft, Align::kLeft, Align::kLeft});
}

}  // namespace

std::string comparison_table(std::span<const ComparedRun> runs) {
  std::string text = table("Memory at the peak", runs, memory_rows(runs));
  for (const ComparedRun& run : runs.subspan(1)) {
    text += value_table(runs.front(), run);
  }
  text += passes(runs);
  const std::vector<ComparisonRow> settings = setting_rows(runs);
  if (!settings.empty()) {
    const size_t shown = std::min(settings.size(), kMostSettings);
    text += "\n" + table("Settings that differ", runs, std::span(settings).first(shown));
    if (settings.size() > shown) {
      text += fmt::format("  and {} more\n", settings.size() - shown);
    }
  }
  const std::vector<ComparisonRow> results = result_rows(runs);
  if (!results.empty()) {
    text += "\n" + table("Results", runs, results);
  }
  return text;
}

}  // namespace lithe
