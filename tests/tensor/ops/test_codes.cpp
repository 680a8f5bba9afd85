// Golden values of the fixed-point formats (SlimFit), what scales and packing are, and that
// stochastic rounding has no bias.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "run_op.h"
#include "tensor/ops/fixed_point.h"
#include "tensor/ops/quantize.h"

using namespace lithe;  // NOLINT

namespace {

Tensor row(const std::vector<float>& values) {
  return Tensor::from<float>({static_cast<int64_t>(values.size())}, values);
}

// Codes as numbers, of whole bytes or packed.
std::vector<int> numbers(const Tensor& codes) {
  std::vector<int> out;
  const auto* bytes = reinterpret_cast<const uint8_t*>(codes.data());
  for (int64_t i = 0; i < codes.numel(); ++i) {
    if (codes.dtype() == DType::i4) {
      const int nibble = (bytes[i / 2] >> (i % 2 * 4)) & 15;
      out.push_back((nibble ^ 8) - 8);
    } else {
      out.push_back(codes.dtype() == DType::i8 ? static_cast<int8_t>(bytes[i]) : bytes[i]);
    }
  }
  return out;
}

std::vector<int> encoded(const FixedPointAttrs& format, const std::vector<float>& x) {
  return numbers(run_op(fixed_point_encode_op, {row(x)}, format)[0]);
}

constexpr FixedPointAttrs kQ34 = {.integer = 3, .fraction = 4};
constexpr FixedPointAttrs kQ21 = {.integer = 2, .fraction = 1};
constexpr FixedPointAttrs kU08 = {.integer = 0, .fraction = 8, .is_signed = false};

std::vector<Tensor> quantized(const Tensor& x, const QuantizeAttrs& attrs,
                              const std::vector<int64_t>& rng = {}) {
  std::vector<Tensor> inputs = {x};
  if (!rng.empty()) {
    inputs.push_back(Tensor::from<int64_t>({2}, rng));
  }
  return run_graph(inputs, [&](Graph& g, const std::vector<ValueId>& in) {
    const QuantizeOut coded = quantize_encode(g, in[0], attrs, in.size() > 1 ? in[1] : kNoValue);
    return std::vector<ValueId>{quantize_decode(g, coded, attrs, DType::f32), coded.codes,
                                coded.scales};
  });
}

}  // namespace

TEST_CASE("fixed point has the original's golden values") {
  CHECK(encoded(kQ34, {0.03125f, 0.09375f, -0.03125f, -0.09375f, 0.5f, 7.9f, 7.97f, 8, 100, -8,
                       -8.1f, 1.03f}) ==
        std::vector<int>{0, 2, 0, -2, 8, 126, 127, 127, 127, -128, -128, 16});
  CHECK(encoded(kQ21, {0.25f, 0.75f, -0.25f, -0.75f, -1.25f, 3.4f, 4, -4.2f, 0.3f, 1}) ==
        std::vector<int>{0, 2, 0, -2, -2, 7, 7, -8, 1, 2});
  CHECK(encoded(kU08, {1.0f / 512, 0.00196f, 3.0f / 512, 1.0f / 577, 1.0f / 384, 1.0f / 197,
                       1.0f / 128, 0.998f, 1}) == std::vector<int>{0, 1, 2, 0, 1, 1, 2, 255, 255});
  CHECK(encoded({.unit = true}, {0, 1, 0.5f, 1.0f / 255, -1, 2}) ==
        std::vector<int>{0, 255, 128, 1, 0, 255});
  // Not a number gets the lowest code.
  CHECK(encoded(kQ34, {std::numeric_limits<float>::quiet_NaN()}) == std::vector<int>{-128});
}

TEST_CASE("neighbours share a byte, the first in the low nibble") {
  // The codes of the original's example: 0, 2, -8, 7, 1, -1, 4, and one more without a partner.
  const Tensor codes =
      run_op(fixed_point_encode_op, {row({0, 1, -4, 3.5f, 0.5f, -0.5f, 2, -2, 1.5f})}, kQ21)[0];
  REQUIRE(codes.bytes() == 5);
  const auto* bytes = reinterpret_cast<const uint8_t*>(codes.data());
  CHECK(std::vector<int>(bytes, bytes + 5) == std::vector<int>{0x20, 0x78, 0xf1, 0xc4, 0x03});
}

TEST_CASE("a format restores its own numbers exactly, in every type") {
  std::vector<float> all;
  for (int code = -128; code < 128; ++code) {
    all.push_back(static_cast<float>(code) / 16);
  }
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    const Tensor x = row(all).to(dtype);
    const auto back = run_graph({x}, [&](Graph& g, const std::vector<ValueId>& in) {
      return std::vector<ValueId>{
          fixed_point_decode(g, fixed_point_encode(g, in[0], kQ34), kQ34, dtype)};
    });
    CHECK(std::equal(x.data(), x.data() + x.bytes(), back[0].data()));
  }
}

TEST_CASE("formats that are none are refused") {
  CHECK_THROWS_AS(encoded({.integer = 3, .fraction = 3}, {1}), ShapeError);
  CHECK_THROWS_AS(quantized(row({1}), {.bits = 5}), ShapeError);
  CHECK_THROWS_AS(quantized(row({1}), {.scale = DType::f64}), ShapeError);
  CHECK_THROWS_AS(quantized(row({1}), {.stochastic = true}), ShapeError);
  CHECK_THROWS_AS(quantized(Tensor(DType::f32, {}), {}), ShapeError);
}

TEST_CASE("a group's scale is its largest magnitude in steps, and errors stay within half a step") {
  constexpr int64_t kRows = 5;
  constexpr int64_t kColumns = 70;  // 64 and a shorter group
  Tensor x(DType::f32, {kRows, kColumns});
  for (int64_t i = 0; i < x.numel(); ++i) {
    x.as<float>()[static_cast<size_t>(i)] = std::sin(static_cast<float>(i * i % 1009));
  }
  for (const int bits : {8, 4}) {
    for (const DType scale : {DType::f32, DType::bf16, DType::f16}) {
      const auto out = quantized(x, {.bits = bits, .group = 64, .scale = scale});
      REQUIRE(out[2].shape() == Shape{kRows, 2});
      CHECK(out[1].bytes() == kRows * kColumns * bits / 8);
      const Tensor scales = out[2].to(DType::f32);
      const float highest = bits == 8 ? 127 : 7;
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t begin : {int64_t{0}, int64_t{64}}) {
          const int64_t end = begin == 0 ? 64 : kColumns;
          float largest = 0;
          for (int64_t c = begin; c < end; ++c) {
            largest =
                std::max(largest, std::abs(x.as<float>()[static_cast<size_t>(r * kColumns + c)]));
          }
          const float step = scales.as<float>()[static_cast<size_t>(r * 2 + begin / 64)];
          CHECK(step == Tensor::from<float>({1}, std::vector<float>{largest / highest})
                            .to(scale)
                            .to(DType::f32)
                            .as<float>()[0]);
          // A scale that was rounded down leaves the largest a little above its highest code.
          const float most = step / 2 + std::max(0.0f, largest - highest * step) + 1e-6f;
          for (int64_t c = begin; c < end; ++c) {
            const auto i = static_cast<size_t>(r * kColumns + c);
            CHECK(std::abs(out[0].as<float>()[i] - x.as<float>()[i]) <= most);
          }
        }
      }
    }
  }
}

TEST_CASE("a group of zeros or of too small numbers is zeros") {
  const auto out = quantized(row({0, 0, 0, 1e-40f, -1e-40f, 0}), {.group = 3, .scale = DType::f32});
  for (const float y : out[0].as<float>()) {
    CHECK(y == 0);
  }
}

TEST_CASE("stochastic rounding is unbiased, a function of seed, step and site, and never clips") {
  constexpr int64_t kCount = 1 << 16;
  // Steps of one: the group's largest is its highest code. The rest lies at 0.3 between two.
  Tensor x(DType::f32, {kCount});
  for (size_t i = 0; i < kCount; ++i) {
    x.as<float>()[i] = i == 0 ? 7.0f : (i % 2 == 0 ? 2.3f : -2.3f);
  }
  const QuantizeAttrs attrs{
      .bits = 4, .group = 0, .scale = DType::f32, .stochastic = true, .key = 9};
  const auto out = quantized(x, attrs, {1, 2});
  CHECK(out[0].as<float>()[0] == 7);
  double even = 0;
  double odd = 0;
  for (size_t i = 1; i < kCount; ++i) {
    const float y = out[0].as<float>()[i];
    CHECK_FALSE((y != 2 && y != 3 && y != -2 && y != -3));
    (i % 2 == 0 ? even : odd) += static_cast<double>(y);
  }
  // A mean of 32,768 draws of spread 0.46 errs by 0.0025; nearest rounding would err by 0.3.
  CHECK(std::abs(even / (kCount / 2 - 1) - 2.3) < 0.011);
  CHECK(std::abs(odd / (kCount / 2) + 2.3) < 0.011);

  const auto codes = numbers(out[1]);
  CHECK(codes == numbers(quantized(x, attrs, {1, 2})[1]));
  CHECK(codes != numbers(quantized(x, attrs, {2, 2})[1]));
  CHECK(codes != numbers(quantized(x, attrs, {1, 3})[1]));
  QuantizeAttrs other = attrs;
  other.key = 10;
  CHECK(codes != numbers(quantized(x, other, {1, 2})[1]));
}
