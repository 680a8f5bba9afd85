#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>

#include "report/run_folder.h"
#include "sample_report.h"
#include "temporary_folder.h"
#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

using namespace lithe;

namespace {

namespace fs = std::filesystem;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

size_t files_in(const fs::path& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// While it lives, writing past `bytes` in one file fails like a full disk does.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_ = {};
  void (*handler_)(int);
};

RunSummary sample_summary() {
  RunSummary summary;
  summary.name = "vit";
  summary.status = "finished";
  summary.device = "cpu, 2 threads";
  summary.seed = 17;
  summary.started = "2025-03-04T10:22:07Z";
  summary.metrics = {{"eval_accuracy", 0.875}, {"loss", NAN}};
  summary.times = {{"total_s", 12.5}};
  summary.versions = {{"lithe", "0.1.0"}};
  return summary;
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("an atomic write replaces the file, keeps other files and leaves nothing behind") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a.json";
  write_file_atomically(path, "one");
  write_file_atomically(path, std::string("t\0o", 3));
  CHECK(read_whole_file(path) == std::string("t\0o", 3));
  CHECK(files_in(folder.path()) == 1);
  write_file_atomically(path, "");
  CHECK(read_whole_file(path).empty());
  struct stat info = {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  CHECK((info.st_mode & 0777) == (0666 & ~mask));
}

TEST_CASE("a leftover temporary file of a killed process is no obstacle") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a";
  std::ofstream(folder.path() / fmt::format(".a.{}-0.tmp", ::getpid())) << "stale";
  write_file_atomically(path, "fresh");
  CHECK(read_whole_file(path) == "fresh");
}

TEST_CASE("a failed write says why, keeps the old file and removes its temporary file") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a";
  write_file_atomically(path, "old");
  {
    const FileSizeLimit limit(4096);
    const std::string what =
        error_of([&] { write_file_atomically(path, std::string(10000, 'x')); });
    CHECK(has(what, "File too large"));
    CHECK(has(what, "10000 bytes"));
  }
  CHECK(read_whole_file(path) == "old");
  CHECK(files_in(folder.path()) == 1);
  const std::string missing =
      error_of([&] { write_file_atomically(folder.path() / "none" / "a", "x"); });
  CHECK(has(missing, "No such file or directory"));
  CHECK_THROWS_AS(read_whole_file(folder.path() / "b"), FileError);
}

TEST_CASE("a run folder holds the files of the design and reads back") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "runs" / "vit";
  const MemoryReport memory = sample_report();
  {
    RunFolder run(path, RunMode::kNew, false);
    run.write_recipe("seed: 17\n");
    run.log().info("hello");
    run.append_metrics({1, {{"loss", 2.5}, {"peak_bytes", 123456789012.0}}});
    run.append_metrics({2, {{"loss", std::numeric_limits<double>::infinity()}}});
    run.write_memory(memory);
    run.write_summary(sample_summary(), &memory);
    run.write_report();
    CHECK(run.checkpoint_path(7) == path / "checkpoints" / "step-7");
  }
  CHECK(read_whole_file(path / "metrics.jsonl") ==
        "{\"step\":1,\"loss\":2.5,\"peak_bytes\":123456789012}\n{\"step\":2,\"loss\":null}\n");
  CHECK(has(read_whole_file(path / "log.txt"), "info: hello\n"));
  const auto summary = nlohmann::json::parse(read_whole_file(path / "summary.json"));
  CHECK(summary["predicted_peak_bytes"] == 19 << 20);
  CHECK(summary["measured_peak_bytes"] == 19 << 20);
  CHECK(summary["memory"]["weights"] == 4 << 20);
  CHECK(summary["metrics"]["eval_accuracy"] == 0.875);
  CHECK(summary["metrics"]["loss"].is_null());
  CHECK(summary["times"]["total_s"] == 12.5);
  CHECK(summary["versions"]["lithe"] == "0.1.0");
  CHECK(summary["seed"] == 17);

  const RunData data = read_run(path / "");
  CHECK(data.name == "vit");
  CHECK(data.recipe_yaml == "seed: 17\n");
  REQUIRE(data.metrics.size() == 2);
  CHECK(data.metrics[0].values == NamedNumbers{{"loss", 2.5}, {"peak_bytes", 123456789012.0}});
  CHECK(std::isnan(data.metrics[1].values[0].second));
  REQUIRE(data.summary);
  CHECK(data.summary->seed == 17);
  CHECK(data.summary->metrics[0].first == "eval_accuracy");
  REQUIRE(data.memory);
  CHECK(to_json(*data.memory) == to_json(memory));
}

TEST_CASE("a finished run is not overwritten unless asked, and the message says how") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "vit";
  {
    RunFolder run(path, RunMode::kNew, false);
    run.append_metrics({1, {{"loss", 1}}});
    run.write_summary(sample_summary(), nullptr);
  }
  const std::string what = error_of([&] { RunFolder(path, RunMode::kNew, false); });
  CHECK(has(what, "a finished run"));
  CHECK(has(what, "--resume"));
  CHECK(has(what, "--overwrite"));
  CHECK(has(what, "--out DIR"));
  CHECK(fs::file_size(path / "metrics.jsonl") > 0);

  fs::create_directories(path / "checkpoints" / "step-1");
  std::ofstream(path / "checkpoints" / "step-1" / "manifest.json") << "{}";
  std::ofstream(path / "notes.md") << "mine";
  {
    RunFolder run(path, RunMode::kOverwrite, false);
    CHECK(!fs::exists(path / "summary.json"));
    CHECK(!fs::exists(path / "checkpoints" / "step-1"));
    CHECK(fs::file_size(path / "metrics.jsonl") == 0);
    CHECK(fs::exists(path / "notes.md"));
  }
  // Cut off before its first checkpoint there is nothing to lose; after it there is.
  CHECK_NOTHROW(RunFolder(path, RunMode::kNew, false));
  fs::create_directories(path / "checkpoints" / "step-5");
  CHECK(has(error_of([&] { RunFolder(path, RunMode::kNew, false); }), "an unfinished run"));
}

TEST_CASE("resume keeps the metrics up to its step and drops a torn line and the summary") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "vit";
  CHECK(has(error_of([&] { RunFolder(path, RunMode::kResume, false); }), "nothing to resume"));
  {
    RunFolder run(path, RunMode::kNew, false);
    run.log().info("first life");
    for (int64_t step = 1; step <= 5; ++step) {
      run.append_metrics({step, {{"loss", static_cast<double>(step)}}});
    }
    run.write_summary(sample_summary(), nullptr);
  }
  std::ofstream(path / "metrics.jsonl", std::ios::app) << "{\"step\":6,\"lo";
  {
    RunFolder run(path, RunMode::kResume, false);
    run.log().info("second life");
    run.resume_at(3);
    CHECK(!fs::exists(path / "summary.json"));
    run.append_metrics({4, {{"loss", 40}}});
  }
  CHECK(read_whole_file(path / "metrics.jsonl") ==
        "{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":2}\n{\"step\":3,\"loss\":3}\n"
        "{\"step\":4,\"loss\":40}\n");
  const std::string log = read_whole_file(path / "log.txt");
  CHECK(has(log, "first life"));
  CHECK(has(log, "second life"));
}

TEST_CASE("two processes cannot write one run") {
  const TemporaryFolder folder;
  RunFolder first(folder.path() / "vit", RunMode::kNew, false);
  first.append_metrics({1, {{"loss", 1}}});
  const std::string what =
      error_of([&] { RunFolder(folder.path() / "vit", RunMode::kOverwrite, false); });
  CHECK(has(what, "another process"));
  CHECK(fs::file_size(folder.path() / "vit" / "metrics.jsonl") > 0);
  first.resume_at(0);  // the replaced file is locked again
  CHECK(has(error_of([&] { RunFolder(folder.path() / "vit", RunMode::kResume, false); }),
            "another process"));
}

TEST_CASE("a metric line that does not fit the disk leaves no half line") {
  const TemporaryFolder folder;
  RunFolder run(folder.path() / "vit", RunMode::kNew, false);
  run.append_metrics({1, {{"loss", 1}}});
  const std::string before = read_whole_file(run.path() / "metrics.jsonl");
  {
    const FileSizeLimit limit(before.size() + 5);
    CHECK(has(error_of([&] { run.append_metrics({2, {{"loss", 2}}}); }), "File too large"));
  }
  CHECK(read_whole_file(run.path() / "metrics.jsonl") == before);
}

TEST_CASE("damaged metrics are refused with the line, a missing folder with its name") {
  const TemporaryFolder folder;
  CHECK(has(error_of([] { parse_metrics("{\"step\":1}\nnoise\n{\"step\":3}\n", "m.jsonl"); }),
            "m.jsonl:2"));
  CHECK(has(error_of([] { parse_metrics("{\"step\":1.5}\n", "m.jsonl"); }), "m.jsonl:1"));
  CHECK(parse_metrics("{\"step\":1}\n{\"st", "m").size() == 1);
  CHECK_THROWS_AS(read_run(folder.path() / "none"), FileError);
  const RunData empty = read_run(folder.path());
  CHECK(!empty.summary);
  CHECK(!empty.memory);
  write_file_atomically(folder.path() / "summary.json", "{\"name\":");
  CHECK(has(error_of([&] { read_run(folder.path()); }), "summary.json"));
}

}  // namespace
