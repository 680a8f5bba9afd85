// What tests ask of whole runs, image_run.h's or text_run.h's.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "train/tiny_run.h"

namespace lithe::testing {

// The overrides `a`, then `b`.
inline std::vector<std::string> with(std::vector<std::string> a,
                                     const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

template <typename Run>
std::vector<double> losses(Run& run, int64_t steps) {
  std::vector<double> out;
  for (int64_t i = 0; i < steps; ++i) {
    out.push_back(run.trainer.step());
  }
  return out;
}

template <typename Run>
void check_same_bits(Run& a, Run& b) {
  const auto x = a.slots();
  const auto y = b.slots();
  REQUIRE(x.size() == y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    INFO(a.experiment.slots()[static_cast<SlotId>(i)].name);
    CHECK(same_bits(x[i], y[i]));
  }
}

}  // namespace lithe::testing
