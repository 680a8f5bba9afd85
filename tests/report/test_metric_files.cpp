// metrics.csv and the TensorBoard event files, read back byte by byte.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>
#include <numeric>

#include "report/metrics_csv.h"
#include "report/run_folder.h"
#include "report/tensorboard.h"
#include "temporary_folder.h"
#include "tensor/core/crc32c.h"
#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

using namespace lithe;

namespace {

namespace fs = std::filesystem;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string repeat_byte(int count, char byte) {
  return std::string(static_cast<size_t>(count), byte);
}

// RFC 3720, appendix B.4, and the check value of the catalogue of CRC algorithms.
TEST_CASE("CRC-32C has the values of RFC 3720") {
  CHECK(crc32c("") == 0);
  CHECK(crc32c("123456789") == 0xe3069283u);
  CHECK(crc32c(repeat_byte(32, '\0')) == 0x8a9136aau);
  CHECK(crc32c(repeat_byte(32, '\xff')) == 0x62a8ab43u);
  std::string rising(32, '\0');
  std::iota(rising.begin(), rising.end(), '\0');
  CHECK(crc32c(rising) == 0x46dd794eu);
  std::string falling(rising.rbegin(), rising.rend());
  CHECK(crc32c(falling) == 0x113fdb5cu);
}

struct Scalar {
  std::string tag;
  float value = 0;
};

struct Event {
  double wall_time = 0;
  int64_t step = 0;
  std::string file_version;
  std::vector<Scalar> scalars;
  int session_status = 0;
};

// A strict reader of the few message types; every byte must be accounted for.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  bool done() const { return bytes_.empty(); }
  std::string_view take(size_t count) {
    REQUIRE(count <= bytes_.size());
    const std::string_view out = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return out;
  }
  template <typename T>
  T fixed() {
    T out{};
    std::memcpy(&out, take(sizeof(T)).data(), sizeof(T));
    return out;
  }
  uint64_t varint() {
    uint64_t out = 0;
    for (int shift = 0;; shift += 7) {
      REQUIRE(shift < 64);
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      out |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        return out;
      }
    }
  }
  std::string_view text() { return take(varint()); }

 private:
  std::string_view bytes_;
};

Scalar read_scalar(std::string_view bytes) {
  Scalar out;
  Reader in(bytes);
  REQUIRE(in.varint() == (1 << 3 | 2));
  out.tag = in.text();
  REQUIRE(in.varint() == (2 << 3 | 5));
  out.value = in.fixed<float>();
  REQUIRE(in.done());
  return out;
}

Event read_event(std::string_view bytes) {
  Event out;
  Reader in(bytes);
  REQUIRE(in.varint() == (1 << 3 | 1));
  out.wall_time = in.fixed<double>();
  REQUIRE(in.varint() == (2 << 3 | 0));
  out.step = static_cast<int64_t>(in.varint());
  while (!in.done()) {
    const uint64_t tag = in.varint();
    Reader inner(in.text());
    if (tag == (3 << 3 | 2)) {
      out.file_version = inner.take(13);
    } else if (tag == (7 << 3 | 2)) {
      REQUIRE(inner.varint() == (1 << 3 | 0));
      out.session_status = static_cast<int>(inner.varint());
    } else {
      REQUIRE(tag == (5 << 3 | 2));
      while (!inner.done()) {
        REQUIRE(inner.varint() == (1 << 3 | 2));
        out.scalars.push_back(read_scalar(inner.text()));
      }
    }
    REQUIRE(inner.done());
  }
  return out;
}

uint32_t unmask(uint32_t masked) { return std::rotl(masked - 0xa282ead8u, 15); }

std::vector<Event> read_events(const fs::path& path) {
  const std::string bytes = read_whole_file(path);
  std::vector<Event> out;
  Reader in(bytes);
  while (!in.done()) {
    const std::string_view length = in.take(8);
    REQUIRE(unmask(in.fixed<uint32_t>()) == crc32c(length));
    const std::string_view message = in.take(Reader(length).fixed<uint64_t>());
    REQUIRE(unmask(in.fixed<uint32_t>()) == crc32c(message));
    out.push_back(read_event(message));
  }
  return out;
}

std::vector<fs::path> event_files(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("an event file holds the version, then scalars with their steps and times") {
  const TemporaryFolder folder;
  EventWriter writer(folder.path() / "a" / "tensorboard");
  writer.scalars(1, {{"loss", 2.5}, {"peak_bytes", 123456789012.0}});
  writer.scalars(300, {{"loss", NAN}, {"lr", std::numeric_limits<double>::infinity()}});
  writer.session_start(int64_t{1} << 40);
  CHECK(is_event_file(writer.path()));
  const std::vector<Event> events = read_events(writer.path());
  REQUIRE(events.size() == 4);
  CHECK(events[0].file_version == "brain.Event:2");
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  for (const Event& event : events) {
    CHECK(event.wall_time <= now.count());
    CHECK(event.wall_time > now.count() - 60);
  }
  CHECK(events[1].step == 1);
  REQUIRE(events[1].scalars.size() == 2);
  CHECK(events[1].scalars[0].tag == "loss");
  CHECK(events[1].scalars[0].value == 2.5f);
  CHECK(events[1].scalars[1].tag == "peak_bytes");
  CHECK(events[1].scalars[1].value == 123456789012.0f);
  CHECK(events[2].step == 300);
  CHECK(std::isnan(events[2].scalars[0].value));
  CHECK(std::isinf(events[2].scalars[1].value));
  CHECK(events[3].step == int64_t{1} << 40);
  CHECK(events[3].session_status == 1);
}

// The bytes that do not depend on the time; the masked CRC of the length 26 was computed by
// tensorboard.compat.tensorflow_stub.pywrap_tensorflow.masked_crc32c of TensorBoard 2.21.
TEST_CASE("the first record is laid out as TFRecord and Event say") {
  const TemporaryFolder folder;
  const EventWriter writer(folder.path());
  const std::string bytes = read_whole_file(writer.path());
  REQUIRE(bytes.size() == 8 + 4 + 26 + 4);
  using namespace std::string_literals;
  CHECK(bytes.substr(0, 8) == "\x1a\0\0\0\0\0\0\0"s);
  CHECK(bytes.substr(8, 4) == "\x12\x9b\xd8-"s);
  CHECK(bytes[12] == '\x09');
  CHECK(bytes.substr(21, 17) == "\x10\0\x1a\x0d"s + "brain.Event:2");
}

TEST_CASE("event files are named so that readers take them in the order they were made") {
  const TemporaryFolder folder;
  std::vector<fs::path> made;
  for (int i = 0; i < 4; ++i) {  // within one second
    made.push_back(EventWriter(folder.path()).path());
  }
  CHECK(event_files(folder.path()) == made);
  // One from a clock that was ahead.
  std::ofstream(folder.path() / "events.out.tfevents.9999999990.host.1") << "";
  CHECK(EventWriter(folder.path())
            .path()
            .filename()
            .string()
            .starts_with("events.out.tfevents.9999999991."));
}

TEST_CASE("the table has a column for each key, in the order they came") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "metrics.csv";
  MetricsCsv csv(path);
  std::vector<MetricLine> lines;
  CHECK(!csv.append({1, {{"loss", 1}}}));  // before the first rewrite
  csv.rewrite(lines);
  CHECK(read_whole_file(path) == "step\n");
  const auto add = [&](MetricLine line) {
    lines.push_back(line);
    const bool fits = csv.append(line);
    if (!fits) {
      csv.rewrite(lines);
    }
    return fits;
  };
  CHECK(!add({1, {{"loss", 2.5}, {"lr", 1e-5}}}));
  CHECK(add({2, {{"lr", 0.1}, {"loss", NAN}}}));
  CHECK(!add({2, {{"eval_f1", 0.5}, {"a,\"b\"", 123456789012.0}}}));
  CHECK(add({3, {{"loss", -std::numeric_limits<double>::infinity()}, {"lr", 1.0 / 3}}}));
  CHECK(add({4, {}}));
  CHECK(read_whole_file(path) ==
        "step,loss,lr,eval_f1,\"a,\"\"b\"\"\"\n"
        "1,2.5,1e-05,,\n"
        "2,nan,0.1,,\n"
        "2,,,0.5,123456789012\n"
        "3,nan,0.3333333333333333,,\n"
        "4,,,,\n");
}

TEST_CASE("a run writes all three, and a resume makes them agree") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "vit";
  {
    RunFolder run(path, RunMode::kNew, false);
    CHECK(!fs::exists(path / "tensorboard"));
    for (int64_t step = 1; step <= 4; ++step) {
      run.append_metrics({step, {{"loss", static_cast<double>(step)}}});
      if (step % 2 == 0) {
        run.append_metrics({step, {{"eval_loss", static_cast<double>(10 * step)}}});
      }
    }
    run.sync_metrics();
  }
  CHECK(read_whole_file(path / "metrics.csv") ==
        "step,loss,eval_loss\n1,1,\n2,2,\n2,,20\n3,3,\n4,4,\n4,,40\n");
  REQUIRE(event_files(path / "tensorboard").size() == 1);
  CHECK(read_events(event_files(path / "tensorboard")[0]).size() == 7);
  // Torn by a kill.
  std::ofstream(path / "metrics.jsonl", std::ios::app) << "{\"step\":5,\"lo";
  std::ofstream(path / "metrics.csv", std::ios::app) << "5,";
  std::ofstream(path / ".metrics.csv.123-0.tmp") << "half";
  std::ofstream(path / ".mine.tmp") << "";
  {
    RunFolder run(path, RunMode::kResume, false);
    CHECK(!fs::exists(path / ".metrics.csv.123-0.tmp"));
    CHECK(fs::exists(path / ".mine.tmp"));
    run.resume_at(2);
    run.append_metrics({3, {{"loss", 33}}});
  }
  CHECK(read_whole_file(path / "metrics.csv") == "step,loss,eval_loss\n1,1,\n2,2,\n2,,20\n3,33,\n");
  const std::vector<fs::path> files = event_files(path / "tensorboard");
  REQUIRE(files.size() == 2);
  const std::vector<Event> events = read_events(files[1]);
  REQUIRE(events.size() == 3);
  CHECK(events[0].file_version == "brain.Event:2");
  CHECK(events[1].session_status == 1);
  CHECK(events[1].step == 3);
  CHECK(events[2].scalars[0].value == 33.0f);

  std::ofstream(path / "tensorboard" / "notes") << "mine";
  { RunFolder run(path, RunMode::kOverwrite, false); }
  CHECK(read_whole_file(path / "metrics.csv") == "step\n");
  CHECK(event_files(path / "tensorboard") == std::vector<fs::path>{path / "tensorboard" / "notes"});
}

TEST_CASE("each of the three that cannot be written is an error with step, file and reason") {
  void (*before)(int) = std::signal(SIGXFSZ, SIG_IGN);
  for (const std::string name : {"metrics.jsonl", "metrics.csv", "tfevents"}) {
    CAPTURE(name);
    const TemporaryFolder folder;
    const fs::path path = folder.path() / "vit";
    RunFolder run(path, RunMode::kNew, false);
    run.append_metrics({1, {{"loss", 1}}});
    const fs::path events = event_files(path / "tensorboard")[0];
    // The file of that name is longer than the others, so the limit strikes it alone.
    const fs::path file = name == "tfevents" ? events : path / name;
    const uintmax_t padded = 10000;
    fs::resize_file(file, padded);
    const std::string was = read_whole_file(file);
    rlimit old = {};
    ::getrlimit(RLIMIT_FSIZE, &old);
    rlimit limit = old;
    limit.rlim_cur = padded + 3;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string what = error_of([&] { run.append_metrics({2, {{"loss", 2}}}); });
    ::setrlimit(RLIMIT_FSIZE, &old);
    CAPTURE(what);
    CHECK(has(what, "[metrics] step 2 is not recorded"));
    CHECK(has(what, file.string()));
    CHECK(has(what, "File too large"));
    CHECK(has(what, "--resume"));
    CHECK(read_whole_file(file) == was);  // no half record
  }
  std::signal(SIGXFSZ, before);
}

}  // namespace
