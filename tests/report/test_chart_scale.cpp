#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "report/chart_scale.h"

using namespace lithe;

namespace {

bool contains(const std::vector<size_t>& kept, size_t i) {
  return std::find(kept.begin(), kept.end(), i) != kept.end();
}

TEST_CASE("ticks are round, evenly spaced and cover the range") {
  CHECK(axis_ticks(0, 1, 4) == std::vector<double>{0, 0.25, 0.5, 0.75, 1});
  CHECK(axis_ticks(0.3, 2.3, 4) == std::vector<double>{0, 0.5, 1, 1.5, 2, 2.5});
  CHECK(axis_ticks(0, 0, 4) == axis_ticks(0, 1, 4));
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{
           {1e-9, 3e-9}, {-5, 7}, {1e12, 1e12 + 1}, {3, 3}, {-2, -2}, {0.1, 0.3}}) {
    CAPTURE(low);
    const auto ticks = axis_ticks(low, high, 5);
    CHECK(ticks.size() >= 2);
    CHECK(ticks.size() <= 12);
    CHECK(ticks.front() <= low + 1e-9 * std::abs(low));
    CHECK(ticks.back() >= high - 1e-9 * std::abs(high));
  }
  CHECK(axis_ticks(NAN, 1, 4).size() >= 2);
}

TEST_CASE("fewer points: short series stay whole, long ones keep ends and extremes") {
  std::mt19937 random(1);
  for (const size_t n : {0u, 1u, 2u, 99u, 100u, 101u, 5000u}) {
    CAPTURE(n);
    std::vector<double> y(n);
    for (double& v : y) {
      v = static_cast<double>(random() % 1000);
    }
    if (n > 50) {
      y[n / 2] = 5000;
      y[n / 3] = -5000;
      y[n / 4] = NAN;
    }
    const auto kept = downsample_extremes(y, 100);
    CHECK(kept.size() == (n <= 100 ? n : kept.size()));
    CHECK(kept.size() <= 100);
    CHECK(std::is_sorted(kept.begin(), kept.end()));
    CHECK(std::adjacent_find(kept.begin(), kept.end()) == kept.end());
    if (n > 50) {
      CHECK(contains(kept, n / 2));
      CHECK(contains(kept, n / 3));
      CHECK(kept.front() == 0);
      CHECK(kept.back() == n - 1);
    }
  }
  const auto gap = downsample_extremes(std::vector<double>(1000, NAN), 100);
  CHECK(gap.size() > 2);
}

TEST_CASE("the timeline keeps its peak wherever it is, also among equals") {
  for (const size_t n : {1u, 2u, 1000u, 1001u, 12345u}) {
    for (size_t peak = 0; peak < n; peak += std::max<size_t>(n / 37, 1)) {
      CAPTURE(n);
      CAPTURE(peak);
      std::vector<int64_t> totals(n, 10);  // all equal: only the planner's choice tells
      const auto equal = downsample_maxima(totals, peak, 1000);
      CHECK(contains(equal, peak));
      totals[peak] = 11;
      const auto kept = downsample_maxima(totals, 0, 1000);
      CHECK(contains(kept, peak));
      CHECK(kept.size() <= 1000);
      CHECK(kept.front() == 0);
      CHECK(kept.back() == n - 1);
    }
  }
  CHECK(downsample_maxima({}, 0, 1000).empty());
}

TEST_CASE("smoothing keeps constants and lines, passes over NaN, takes noise away") {
  for (const double v : smooth(std::vector<double>(50, 3.0), 10)) {
    CHECK(v == doctest::Approx(3.0));
  }
  CHECK(smooth({1, 5, 2}, 1) == std::vector<double>{1, 5, 2});
  std::vector<double> line(201);
  for (size_t i = 0; i < line.size(); ++i) {
    line[i] = static_cast<double>(i);
  }
  CHECK(smooth(line, 10)[100] == doctest::Approx(100));  // no lag
  const auto out = smooth({1, NAN, 3}, 4);
  CHECK(std::isnan(out[1]));
  CHECK(out[0] > 1);
  CHECK(out[0] < 3);
  CHECK(out[2] < 3);
  std::vector<double> noise(1000);
  for (size_t i = 0; i < noise.size(); ++i) {
    noise[i] = i % 2 == 0 ? 1 : -1;
  }
  CHECK(std::abs(smooth(noise, 40)[500]) < 0.1);
}

}  // namespace
