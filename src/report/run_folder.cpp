#include "report/run_folder.h"

#include <fcntl.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
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

RunFolder::RunFolder(fs::path folder, RunMode mode, bool console) : folder_(std::move(folder)) {
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
    fs::create_directories(folder_);
    open_metrics(false);  // locks, so nothing is removed under a run that is still going on
    if (mode != RunMode::kResume) {
      remove_earlier_run(folder_);
      open_metrics(true);
    }
  } catch (const fs::filesystem_error& error) {
    throw FileError("run_folder", "cannot prepare {}: {}; choose another folder by --out DIR",
                    folder_.string(), error.code().message());
  }
  log_ = open_log(folder_, mode == RunMode::kResume, console);
}

RunFolder::~RunFolder() {
  if (metrics_ >= 0) {
    ::close(metrics_);
  }
}

fs::path RunFolder::checkpoint_path(int64_t step) const {
  return folder_ / "checkpoints" / fmt::format("step-{}", step);
}

void RunFolder::open_metrics(bool truncate) {
  const fs::path path = folder_ / "metrics.jsonl";
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) {
    throw FileError("metrics", "cannot open {}: {}; choose another folder by --out DIR",
                    path.string(), std::strerror(errno));
  }
  if (metrics_ >= 0) {
    ::close(metrics_);  // gives up its lock, so the new descriptor can take it
  }
  metrics_ = fd;
  // File systems without locks answer otherwise, and are no reason to refuse a run.
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(fd);
    metrics_ = -1;
    throw FileError("run_folder",
                    "another process is writing to {}; wait for it or choose another folder by "
                    "--out DIR",
                    folder_.string());
  }
  if (truncate && ::ftruncate(fd, 0) != 0) {
    throw FileError("metrics", "cannot empty {}: {}; check the disk", path.string(),
                    std::strerror(errno));
  }
}

void RunFolder::resume_at(int64_t step) {
  const fs::path path = folder_ / "metrics.jsonl";
  const std::string text = read_whole_file(path);
  std::string kept;
  size_t begin = 0;
  for (const MetricLine& line : parse_metrics(text, path.string())) {
    const size_t end = text.find('\n', begin) + 1;
    if (line.step <= step) {
      kept.append(text, begin, end - begin);
    }
    begin = end;
  }
  if (kept != text) {
    write_file_atomically(path, kept);
    open_metrics(false);  // the old descriptor still points at the replaced file
  }
  std::error_code ignored;
  fs::remove(folder_ / "summary.json", ignored);
}

void RunFolder::append_metrics(const MetricLine& line) {
  const off_t before = ::lseek(metrics_, 0, SEEK_END);
  if (!write_all(metrics_, metric_line_json(line) + "\n")) {
    const int code = errno;
    // No half line may stay: it would join the next one. Should this fail too, the reader
    // still leaves out a torn last line.
    const bool cut = before >= 0 && ::ftruncate(metrics_, before) == 0;
    throw FileError("metrics", "cannot write step {} to {}: {}{}; free disk space and --resume",
                    line.step, (folder_ / "metrics.jsonl").string(), std::strerror(code),
                    cut ? "" : " (the last line is incomplete)");
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
