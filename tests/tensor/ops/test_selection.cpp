// Dropout and top-k: which elements are chosen.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tensor/ops/dropout.h"
#include "tensor/ops/random_words.h"
#include "tensor/ops/run_op.h"
#include "tensor/ops/top_k.h"

namespace lithe {
namespace {

Tensor rng(int64_t seed, int64_t step) {
  return Tensor::from({2}, std::vector<int64_t>{seed, step});
}

Tensor ones(const Shape& shape) {
  Tensor out(DType::f32, shape);
  std::ranges::fill(out.as<float>(), 1.0f);
  return out;
}

TEST_CASE("many blocks of lanes at once are the same blocks one by one") {
  const uint64_t seed = 0x123456789abcdefull;
  const uint64_t stream = 0xfedcba9876543210ull;
  for (const uint64_t first :
       {uint64_t{0}, uint64_t{77}, uint64_t{0xfffffff0}, ~uint64_t{0} - 40}) {
    std::array<uint16_t, kLanesAtOnce> lanes;
    random_lanes(seed, stream, first, lanes.data());
    for (size_t i = 0; i < lanes.size(); ++i) {
      CHECK(lanes[i] ==
            dropout_lane(dropout_block(seed, stream, first + i / 8), static_cast<int>(i % 8)));
    }
    std::array<uint8_t, kByteLanesAtOnce> bytes;
    random_lanes(seed, stream, first, bytes.data());
    for (size_t i = 0; i < bytes.size(); ++i) {
      CHECK(bytes[i] ==
            dropout_lane<8>(dropout_block(seed, stream, first + i / 16), static_cast<int>(i % 16)));
    }
  }
}

TEST_CASE("the probability that dropout rounds p to, and what undoes it") {
  CHECK(dropout_threshold(0.5) == 32768);
  CHECK(dropout_scale(0.5) == 2.0);
  CHECK(dropout_threshold(0.1) == 6554);
  CHECK(dropout_scale(0.1) == 65536.0 / (65536 - 6554));
  CHECK(dropout_scale(0.999999) == 0);  // everything is dropped
  CHECK(dropout_threshold(0.1, 8) == 26);
  CHECK(dropout_scale(0.1, 8) == 256.0 / (256 - 26));
  CHECK(dropout_threshold(0.001, 8) == 1);  // not nothing
  CHECK(dropout_threshold(0, 8) == 0);
  CHECK(dropout_scale(0.999, 8) == 0);
}

TEST_CASE("dropout keeps what dropout_keep says, on any number of threads, and scales it") {
  const int64_t n = 20011;
  const DropoutAttrs attrs{0.3, 42};
  for (const int threads : {1, 2, 3}) {
    const ThreadCount count(threads);
    const Tensor y = run_op(dropout_op, {ones({n}), rng(-5, 9)}, attrs)[0];
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; ++i) {
      const bool keep = dropout_keep(static_cast<uint64_t>(-5), 9, 42, static_cast<uint64_t>(i),
                                     dropout_threshold(0.3));
      wrong += y.as<float>()[static_cast<size_t>(i)] != (keep ? float(dropout_scale(0.3)) : 0.0f);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("dropout of 8 bits keeps what dropout_keep_in_row says, row by row") {
  const DropoutAttrs attrs{.p = 0.3, .key = 42, .bits = 8};
  const uint32_t threshold = dropout_threshold(0.3, 8);
  for (const int64_t width : {1, 16, 45, 300}) {
    const int64_t rows = 131;
    const Tensor y = run_op(dropout_op, {ones({rows, width}), rng(-5, 9)}, attrs)[0];
    int64_t wrong = 0;
    for (int64_t i = 0; i < rows * width; ++i) {
      const bool keep = dropout_keep_in_row(static_cast<uint64_t>(-5), 9, 42, i / width, width,
                                            i % width, threshold);
      wrong +=
          y.as<float>()[static_cast<size_t>(i)] != (keep ? float(dropout_scale(0.3, 8)) : 0.0f);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("dropout's rate is p; step, key and seed each change the mask") {
  const int64_t n = 100000;
  const auto mask = [&](int64_t seed, int64_t step, DropoutAttrs attrs) {
    return run_op(dropout_op, {ones({n}), rng(seed, step)}, attrs)[0];
  };
  const Tensor base = mask(1, 1, {0.1, 1});
  const auto zeros = [](const Tensor& t) { return std::ranges::count(t.as<float>(), 0.0f); };
  // Five standard deviations of a binomial: sqrt(n p (1 - p)) = 95.
  CHECK(std::abs(static_cast<double>(zeros(base)) - 10000) < 475);
  for (const Tensor& other : {mask(2, 1, {0.1, 1}), mask(1, 2, {0.1, 1}), mask(1, 1, {0.1, 2})}) {
    int64_t both = 0;
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      both += base.as<float>()[i] == 0 && other.as<float>()[i] == 0;
    }
    // Independent masks agree on 1 % zeros; five deviations of 31.
    CHECK(std::abs(static_cast<double>(both) - 1000) < 157);
  }
}

TEST_CASE("dropout refuses p outside [0, 1) and p = 0 costs nothing") {
  const SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {3});
  const ValueId r = g.input("rng", DType::i64, {2});
  CHECK(dropout(g, x, r, {0, 1}) == x);
  CHECK_THROWS_AS(dropout(g, x, r, {1, 1}), ShapeError);
  CHECK_THROWS_AS(dropout(g, x, r, {-0.1, 1}), ShapeError);
  CHECK_THROWS_AS(dropout(g, x, r, {std::nan(""), 1}), ShapeError);
  CHECK_THROWS_AS(dropout(g, x, x, {0.1, 1}), ShapeError);
  CHECK_THROWS_AS(dropout(g, x, r, {0.1, 1, 4}), ShapeError);
}

std::vector<int32_t> indices_of(const std::vector<float>& x, int64_t k, bool by_magnitude) {
  const Tensor in = Tensor::from({static_cast<int64_t>(x.size())}, x);
  const std::vector<Tensor> out = run_op(top_k_op, {in}, TopKAttrs{k, by_magnitude});
  const auto indices = out[1].as<int32_t>();
  for (size_t i = 0; i < indices.size(); ++i) {
    const float a = out[0].as<float>()[i];
    const float b = x[static_cast<size_t>(indices[i])];
    CHECK((a == b || (std::isnan(a) && std::isnan(b))));
  }
  return {indices.begin(), indices.end()};
}

TEST_CASE("top-k: equal elements by index, NaN first, infinities and zeros in order") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  using Indices = std::vector<int32_t>;
  CHECK(indices_of({1, 3, 2, 3, 3}, 2, false) == Indices{1, 3});
  CHECK(indices_of({1, 3, 2, 3, 3}, 4, false) == Indices{1, 3, 4, 2});
  CHECK(indices_of({-4, 1, 4, -1}, 3, true) == Indices{0, 2, 1});
  CHECK(indices_of({-4, 1, 4, -1}, 3, false) == Indices{2, 1, 3});
  CHECK(indices_of({1, nan, inf, -inf, nan, 2}, 6, false) == Indices{1, 4, 2, 5, 0, 3});
  CHECK(indices_of({1, -nan, inf, -inf, -1}, 5, true) == Indices{1, 2, 3, 0, 4});
  CHECK(indices_of({-0.0f, 0.0f, -1, 1e-45f}, 3, false) == Indices{3, 0, 1});
  CHECK(indices_of({5}, 1, false) == Indices{0});
  CHECK_THROWS_AS(indices_of({5}, 2, false), ShapeError);
}

TEST_CASE("top-k agrees with sorting, also where many are equal") {
  std::vector<float> x(3001);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(static_cast<int>(philox(3, 0, i).word[0] % 61) - 30);
  }
  for (const bool by_magnitude : {false, true}) {
    std::vector<int32_t> expected(x.size());
    std::iota(expected.begin(), expected.end(), 0);
    std::ranges::stable_sort(expected, [&](int32_t a, int32_t b) {
      const float p = x[static_cast<size_t>(a)];
      const float q = x[static_cast<size_t>(b)];
      return by_magnitude ? std::fabs(p) > std::fabs(q) : p > q;
    });
    for (const int64_t k : {1, 300, 3001}) {
      CHECK(indices_of(x, k, by_magnitude) ==
            std::vector<int32_t>(expected.begin(), expected.begin() + k));
    }
  }
}

}  // namespace
}  // namespace lithe
