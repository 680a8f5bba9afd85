// What a run leaves in its folder, as plain structs that can be written and read back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "report/memory_report.h"

namespace lithe {

using NamedNumbers = std::vector<std::pair<std::string, double>>;

// One line of metrics.jsonl. Well-known keys: loss, lr, grad_norm, samples_per_s, tflops,
// peak_bytes; keys that start with "eval_" are drawn as evaluation curves.
struct MetricLine {
  int64_t step = 0;
  NamedNumbers values;
};

// summary.json, apart from the memory numbers.
struct RunSummary {
  std::string name;
  std::string status;  // "finished", "interrupted", "failed", "dry run"
  std::string device;
  uint64_t seed = 0;
  std::string started;                                        // ISO 8601, UTC
  NamedNumbers metrics;                                       // final values
  NamedNumbers times;                                         // seconds: "total_s", "eval_s", ...
  std::vector<std::pair<std::string, std::string>> versions;  // "lithe" -> "0.1.0"
};

struct RunData {
  std::string name;
  std::string recipe_yaml;
  std::optional<RunSummary> summary;  // none while the run goes on
  std::vector<MetricLine> metrics;
  std::optional<MemoryReport> memory;
};

// One JSON object in one line, without the newline; whole numbers stay whole, what is not finite
// becomes null.
std::string metric_line_json(const MetricLine& line);

// The lines of a metrics.jsonl. A last line without its newline (a torn write) is left out; any
// other line that is no metric line throws FileError with `where` and the line number.
std::vector<MetricLine> parse_metrics(std::string_view text, const std::string& where);

// summary.json: name, status, device, seed, started, metrics, times, versions and, with a memory
// report, predicted_peak_bytes, measured_peak_bytes (null: unknown), `memory` by class at the peak
// and `memory_most`, the most of each class at any time.
nlohmann::ordered_json summary_json(const RunSummary& summary, const MemoryReport* memory);

// Reads recipe, summary and memory report of a run folder; files that are not there yet leave their
// member empty. Throws FileError when the folder is missing or a file in it is damaged or far too
// large.
RunData read_run_record(const std::filesystem::path& folder);

// The same with the metrics of every step.
RunData read_run(const std::filesystem::path& folder);

}  // namespace lithe
