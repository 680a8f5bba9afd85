// The folder of one run: recipe.yaml, log.txt, metrics.jsonl, summary.json, memory.json,
// report.html and checkpoints/step-N/.
#pragma once

#include <spdlog/logger.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>

#include "report/run_data.h"

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
  ~RunFolder();

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path checkpoint_path(int64_t step) const;
  spdlog::logger& log() { return *log_; }

  // Call once the checkpoint of `step` is loaded: drops the metric lines after it (and a torn last
  // line) and the old summary, so that a run cut off again does not look finished.
  void resume_at(int64_t step);

  // One line a step, handed to the system before the call returns.
  void append_metrics(const MetricLine& line);

  void write_recipe(std::string_view yaml);
  void write_summary(const RunSummary& summary, const MemoryReport* memory);
  void write_memory(const MemoryReport& report);
  void write_report();  // report.html, from what the folder holds now

 private:
  void open_metrics(bool truncate);

  std::filesystem::path folder_;
  std::shared_ptr<spdlog::logger> log_;
  int metrics_ = -1;  // descriptor, locked while the run lasts
};

}  // namespace lithe
