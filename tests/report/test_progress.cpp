#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "report/progress.h"

using namespace lithe;

namespace {

struct Recorder {
  double now = 100;
  std::vector<std::string> writes;
  Progress make(int64_t total, bool terminal, int64_t first = 0, int columns = 120) {
    return Progress(
        total, first, terminal, columns, [this] { return now; },
        [this](std::string_view text) { writes.emplace_back(text); });
  }
};

TEST_CASE("the line") {
  CHECK(progress_line(1200, 9380, 1843.2, 0.43119, 200) ==
        "step 1200/9380  12.8%  1843 samples/s  loss 0.4312  3m20s left");
  CHECK(progress_line(1, 10, 0, NAN, -1) == "step 1/10  10.0%  loss NaN");
  CHECK(progress_line(0, 0, 0, 1, -1) == "step 0/0  loss 1");
  CHECK(progress_line(5, 10, 12500, 1, 3720) ==
        "step 5/10  50.0%  12.5k samples/s  loss 1  1h02m left");
}

TEST_CASE("a terminal line is rewritten at most ten times a second and ended once") {
  Recorder out;
  {
    Progress progress = out.make(1000, true);
    for (int64_t step = 1; step <= 1000; ++step) {
      out.now += 0.01;
      progress.update(step, 32, 1.0);
    }
    progress.finish();
  }
  CHECK(out.writes.size() >= 90);
  CHECK(out.writes.size() <= 102);
  CHECK(out.writes.front().rfind("\r\x1b[K", 0) == 0);
  CHECK(out.writes[out.writes.size() - 2].find("step 1000/1000  100.0%  3200 samples/s") !=
        std::string::npos);
  CHECK(out.writes.back() == "\n");
}

TEST_CASE("elsewhere a line at most every ten seconds, and the last step always") {
  Recorder out;
  Progress progress = out.make(100, false);
  for (int64_t step = 1; step <= 100; ++step) {
    out.now += 0.25;
    progress.update(step, 8, 1.0);
  }
  progress.finish();
  REQUIRE(out.writes.size() == 4);  // 0.25 s, 10.25 s, 20.25 s and the end
  CHECK(out.writes[1].find("step 41/100") == 0);
  CHECK(out.writes[1].find("32 samples/s") != std::string::npos);
  CHECK(out.writes[1].find("15s left\n") != std::string::npos);
  CHECK(out.writes[3].find("step 100/100") == 0);
}

TEST_CASE("rate and time left follow the last half minute and ignore the steps before a resume") {
  Recorder out;
  Progress progress = out.make(2000, false, 1000);
  for (int64_t step = 1001; step <= 1050; ++step) {
    out.now += 2;  // slow at first: 16 samples/s
    progress.update(step, 32, 1.0);
  }
  CHECK(progress.samples_per_s() == doctest::Approx(16));
  for (int64_t step = 1051; step <= 1200; ++step) {
    out.now += 0.5;
    progress.update(step, 32, 1.0);
  }
  CHECK(progress.samples_per_s() == doctest::Approx(64));
  CHECK(out.writes.back().find("left") != std::string::npos);
}

TEST_CASE("a narrow terminal cuts the line, so that it never wraps") {
  Recorder out;
  Progress progress = out.make(10, true, 0, 20);
  out.now += 1;
  progress.update(1, 1, 1.0);
  CHECK(out.writes.front() == "\r\x1b[Kstep 1/10  10.0%  1");
}

}  // namespace
