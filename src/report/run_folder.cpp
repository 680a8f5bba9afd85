#include "report/run_folder.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "report/html.h"
#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> checkpoints_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder / "checkpoints", ignored)) {
    if (entry.path().filename().string().rfind("step-", 0) == 0) {
      found.push_back(entry.path());
    }
  }
  return found;
}

// Only files a run writes: the folder may be one that the user keeps other things in.
void remove_earlier_run(const fs::path& folder) {
  // The summary goes first: a run without one does not look finished.
  for (const char* name : {"summary.json", "report.html", "memory.json", "recipe.yaml"}) {
    fs::remove(folder / name);
  }
  for (const fs::path& checkpoint : checkpoints_in(folder)) {
    fs::remove_all(checkpoint);
  }
  std::vector<fs::path> events;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder / "tensorboard", ignored)) {
    if (is_event_file(entry.path())) {
      events.push_back(entry.path());
    }
  }
  for (const fs::path& path : events) {
    fs::remove(path);
  }
}

// Half-written files of killed processes, ".NAME.PID-N.tmp".
void remove_leftovers(const fs::path& folder) {
  std::vector<fs::path> leftovers;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const std::string file = entry.path().filename().string();
    for (const char* name : {"summary.json", "report.html", "memory.json", "recipe.yaml",
                             "metrics.jsonl", "metrics.csv"}) {
      if (file.starts_with(fmt::format(".{}.", name)) && file.ends_with(".tmp")) {
        leftovers.push_back(entry.path());
      }
    }
  }
  for (const fs::path& path : leftovers) {
    fs::remove(path, ignored);
  }
}

// An error's text without the place in brackets.
std::string reason(const Error& error) {
  const std::string what = error.what();
  return what.substr(what.find("] ") + 2);
}

std::shared_ptr<spdlog::logger> open_log(const fs::path& folder, bool append, bool console) {
  const fs::path path = folder / "log.txt";
  try {
    std::vector<spdlog::sink_ptr> sinks;
    auto file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string(), !append);
    file->set_pattern("%Y-%m-%d %H:%M:%S.%e %l: %v");
    sinks.push_back(std::move(file));
    if (console) {
      auto terminal = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
      // On a terminal the progress line may stand there: the message takes its place.
      const std::string clear = ::isatty(STDERR_FILENO) == 1 ? "\r\x1b[K" : "";
      terminal->set_pattern(clear + "%^%H:%M:%S %v%$");
      sinks.push_back(std::move(terminal));
    }
    auto log = std::make_shared<spdlog::logger>("run", sinks.begin(), sinks.end());
    log->flush_on(spdlog::level::info);
    return log;
  } catch (const spdlog::spdlog_ex& error) {
    throw FileError("log", "cannot open {}: {}; choose another folder with --out DIR",
                    path.string(), error.what());
  }
}

}  // namespace

RunFolder::RunFolder(fs::path folder, RunMode mode, bool console)
    : folder_(std::move(folder)), csv_(folder_ / "metrics.csv") {
  std::error_code ignored;
  const bool finished = fs::exists(folder_ / "summary.json", ignored);
  const size_t checkpoints = checkpoints_in(folder_).size();
  if (mode == RunMode::kNew && (finished || checkpoints > 0)) {
    throw UsageError("run_folder",
                     "{} holds {} with {} checkpoints; go on with it by --resume, replace it by "
                     "--overwrite, or choose another folder by --out DIR",
                     folder_.string(), finished ? "a finished run" : "an unfinished run",
                     checkpoints);
  }
  if (mode == RunMode::kResume && !fs::is_directory(folder_, ignored)) {
    throw UsageError("run_folder",
                     "{} does not exist, so there is nothing to resume; leave "
                     "--resume out to start the run",
                     folder_.string());
  }
  try {
    make_folders(folder_);
    open_metrics();  // locks, so nothing is removed under a run that is still going on
    remove_leftovers(folder_);
    if (mode != RunMode::kResume) {
      remove_earlier_run(folder_);
      metrics_.empty();
      csv_.rewrite({});
    }
  } catch (const fs::filesystem_error& error) {
    throw FileError("run_folder", "cannot prepare {}: {}; choose another folder by --out DIR",
                    folder_.string(), error.code().message());
  }
  log_ = open_log(folder_, mode == RunMode::kResume, console);
}

fs::path RunFolder::checkpoint_path(int64_t step) const {
  return folder_ / "checkpoints" / fmt::format("step-{}", step);
}

void RunFolder::open_metrics() {
  metrics_ = AppendFile(folder_ / "metrics.jsonl");
  if (!metrics_.lock()) {
    throw FileError("run_folder",
                    "another process is writing to {}; wait for it or choose another folder by "
                    "--out DIR",
                    folder_.string());
  }
}

void RunFolder::resume_at(int64_t step) {
  const fs::path path = folder_ / "metrics.jsonl";
  const std::string text = read_whole_file(path);
  std::string kept;
  std::vector<MetricLine> kept_lines;
  size_t begin = 0;
  for (MetricLine& line : parse_metrics(text, path.string())) {
    const size_t end = text.find('\n', begin) + 1;
    if (line.step <= step) {
      kept.append(text, begin, end - begin);
      kept_lines.push_back(std::move(line));
    }
    begin = end;
  }
  if (kept != text) {
    write_file_atomically(path, kept);
    open_metrics();  // the old descriptor still points at the replaced file
  }
  csv_.rewrite(kept_lines);
  events_.emplace(folder_ / "tensorboard");
  events_->session_start(step + 1);
  std::error_code ignored;
  fs::remove(folder_ / "summary.json", ignored);
}

void RunFolder::append_metrics(const MetricLine& line) {
  try {
    metrics_.append(metric_line_json(line) + "\n");
    if (!csv_.append(line)) {
      csv_.rewrite(parse_metrics(read_whole_file(metrics_.path()), metrics_.path().string()));
    }
    if (!events_) {
      events_.emplace(folder_ / "tensorboard");
    }
    events_->scalars(line.step, line.values);
  } catch (const FileError& error) {
    throw FileError("metrics", "step {} is not recorded: {}; then --resume", line.step,
                    reason(error));
  }
}

void RunFolder::sync_metrics() {
  metrics_.sync();
  csv_.sync();
  if (events_) {
    events_->sync();
  }
}

void RunFolder::write_recipe(std::string_view yaml) {
  write_file_atomically(folder_ / "recipe.yaml", yaml);
}

void RunFolder::write_summary(const RunSummary& summary, const MemoryReport* memory) {
  write_file_atomically(
      folder_ / "summary.json",
      summary_json(summary, memory)
              .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
          "\n");
}

void RunFolder::write_memory(const MemoryReport& report) {
  write_file_atomically(folder_ / "memory.json", dump_readable(to_json(report)));
}

void RunFolder::write_report() {
  write_file_atomically(folder_ / "report.html", render_report(read_run(folder_)));
}

}  // namespace lithe
