#include "report/comparison_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "report/memory_stack.h"
#include "report/memory_table.h"
#include "report/metric_text.h"
#include "report/text_table.h"
#include "report/units.h"

namespace lithe {
namespace {

constexpr int kSettingWidth = 40;

using Cell = std::function<std::string(const ComparedRun&)>;

ComparisonRow row(const std::string& label, std::span<const ComparedRun> runs, const Cell& cell) {
  ComparisonRow out{label, {}};
  for (const ComparedRun& run : runs) {
    out.cells.push_back(cell(run));
  }
  return out;
}

bool any(std::span<const ComparedRun> runs, const std::function<bool(const ComparedRun&)>& test) {
  return std::any_of(runs.begin(), runs.end(), test);
}

std::string measured_peak(const ComparedRun& run) {
  if (run.memory.measured_peak_bytes < 0) {
    return run.planned_only ? "planned only" : "not measured";
  }
  return format_mebibytes(run.memory.measured_peak_bytes);
}

std::string ratio(int64_t part, int64_t whole) {
  return whole > 0 ? fmt::format("{:.3f}×", static_cast<double>(part) / static_cast<double>(whole))
                   : "–";
}

// One row for each key, in the order in which keys appear.
void add_numbers(std::vector<ComparisonRow>& rows, std::span<const ComparedRun> runs,
                 const std::function<const NamedNumbers&(const ComparedRun&)>& numbers,
                 const std::function<std::string(const std::string&, double)>& format) {
  const size_t begin = rows.size();
  for (size_t r = 0; r < runs.size(); ++r) {
    for (const auto& number : numbers(runs[r])) {
      const std::string& key = number.first;
      const auto known =
          std::find_if(rows.begin() + static_cast<std::ptrdiff_t>(begin), rows.end(),
                       [&](const ComparisonRow& known_row) { return known_row.label == key; });
      const auto place = static_cast<size_t>(known - rows.begin());
      if (known == rows.end()) {
        rows.push_back({key, std::vector<std::string>(runs.size(), "–")});
      }
      rows[place].cells[r] = format(key, number.second);
    }
  }
}

}  // namespace

std::string format_change(int64_t bytes) {
  return (bytes > 0 ? "+" : "") + format_mebibytes(bytes);
}

std::string format_presence(const std::optional<int64_t>& bytes) {
  if (!bytes) {
    return "absent";
  }
  return *bytes == 0 ? "not alive" : format_mebibytes(*bytes);
}

std::string class_change(const ValueDifference& value) {
  if (value.first_bytes && value.bytes && value.first_class != value.cls) {
    return class_label(value.first_class) + " → " + class_label(value.cls);
  }
  return class_label(value.bytes ? value.cls : value.first_class);
}

std::string kind_of(const ComparedRun& run) {
  return run.planned_only ? "planned" : run.summary.status + " run";
}

std::string peak_ratio(const ComparedRun& first, const ComparedRun& run) {
  return ratio(run.memory.predicted_peak_bytes, first.memory.predicted_peak_bytes);
}

std::vector<ComparisonRow> memory_rows(std::span<const ComparedRun> runs) {
  const ComparedRun& first = runs.front();
  std::vector<ComparisonRow> rows;
  rows.push_back(row("from", runs, kind_of));
  rows.push_back(row("device", runs, [](const ComparedRun& run) { return run.summary.device; }));
  for (const MemoryClass cls : kStackOrder) {
    const auto bytes = [c = static_cast<size_t>(cls)](const ComparedRun& run) {
      return run.memory.peak_by_class[c];
    };
    if (any(runs, [&](const ComparedRun& run) { return bytes(run) != 0; })) {
      rows.push_back(row(class_label(cls), runs,
                         [&](const ComparedRun& run) { return format_mebibytes(bytes(run)); }));
      rows.back().cls = cls;
    }
  }
  const auto gaps = [](const ComparedRun& run) {
    return std::max<int64_t>(0, run.memory.predicted_peak_bytes - run.memory.live_at_peak());
  };
  if (any(runs, [&](const ComparedRun& run) { return gaps(run) > 0; })) {
    rows.push_back(row("alignment and gaps", runs,
                       [&](const ComparedRun& run) { return format_mebibytes(gaps(run)); }));
  }
  rows.push_back(row("predicted peak", runs, [](const ComparedRun& run) {
    return format_mebibytes(run.memory.predicted_peak_bytes);
  }));
  rows.push_back(row("difference", runs, [&](const ComparedRun& run) {
    return &run == &first
               ? "–"
               : format_change(run.memory.predicted_peak_bytes - first.memory.predicted_peak_bytes);
  }));
  rows.push_back(
      row("ratio", runs, [&](const ComparedRun& run) { return peak_ratio(first, run); }));
  rows.push_back(row("measured peak", runs, measured_peak));
  if (any(runs, [](const ComparedRun& run) { return run.memory.measured_peak_bytes >= 0; })) {
    rows.push_back(row("measured to predicted", runs, [](const ComparedRun& run) {
      return run.memory.measured_peak_bytes < 0 ? "–" : peak_difference(run.memory);
    }));
  }
  if (any(runs, [](const ComparedRun& run) { return run.memory.context_bytes > 0; })) {
    rows.push_back(row("context, beside it", runs, [](const ComparedRun& run) {
      return run.planned_only ? "–" : format_mebibytes(run.memory.context_bytes);
    }));
  }
  return rows;
}

std::vector<ComparisonRow> result_rows(std::span<const ComparedRun> runs) {
  std::vector<ComparisonRow> rows;
  add_numbers(
      rows, runs, [](const ComparedRun& run) -> const NamedNumbers& { return run.summary.metrics; },
      [](const std::string& key, double value) { return metric_format(key)(value); });
  add_numbers(
      rows, runs, [](const ComparedRun& run) -> const NamedNumbers& { return run.summary.times; },
      format_run_time);
  return rows;
}

std::vector<ComparisonRow> setting_rows(std::span<const ComparedRun> runs) {
  std::vector<ComparisonRow> rows;
  for (const SettingDifference& setting : settings_that_differ(runs)) {
    ComparisonRow added{setting.key, {}};
    for (const std::optional<std::string>& value : setting.values) {
      added.cells.push_back(value ? shortened(*value, kSettingWidth) : "–");
    }
    rows.push_back(std::move(added));
  }
  return rows;
}

}  // namespace lithe
