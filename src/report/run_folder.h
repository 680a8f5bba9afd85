// The folder of one run: recipe.yaml, log.txt, metrics.jsonl (and the same as metrics.csv and
// tensorboard/events.out.tfevents.*), summary.json, memory.json, report.html and
// checkpoints/step-N/.
#pragma once

#include <spdlog/logger.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

#include "report/metrics_csv.h"
#include "report/run_data.h"
#include "report/tensorboard.h"
#include "tensor/core/append_file.h"

namespace lithe {

enum class RunMode {
  kNew,        // refuses a folder with a finished run or with checkpoints
  kOverwrite,  // removes what an earlier run left, and nothing else
  kResume,     // goes on: log and metrics are appended to
};

class RunFolder {
 public:
  // Creates the folder and opens log.txt and metrics.jsonl. Throws UsageError when the mode does
  // not fit what is there, FileError when it cannot be written or another process writes to it.
  // `console` also logs to stderr, coloured on a terminal.
  RunFolder(std::filesystem::path folder, RunMode mode, bool console = true);
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path checkpoint_path(int64_t step) const;
  spdlog::logger& log() { return *log_; }

  // Call once the checkpoint of `step` is loaded: drops the metrics after it (and a torn last
  // line) and the old summary, so that a run cut off again does not look finished.
  void resume_at(int64_t step);

  // One line a step, handed to the system before the call returns. Throws FileError when it does
  // not reach all three files; resume_at() then makes them agree again.
  void append_metrics(const MetricLine& line);
  // Metrics reach the disk. Call before a checkpoint is saved, so that none outlives its metrics.
  void sync_metrics();

  void write_recipe(std::string_view yaml);
  void write_summary(const RunSummary& summary, const MemoryReport* memory);
  void write_memory(const MemoryReport& report);
  void write_report();  // report.html, from what the folder holds now

 private:
  void open_metrics();

  std::filesystem::path folder_;
  std::shared_ptr<spdlog::logger> log_;
  AppendFile metrics_;  // locked while the run lasts
  MetricsCsv csv_;
  std::optional<EventWriter> events_;  // from the first metrics or the resume on
};

}  // namespace lithe
