#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tensor/core/convert.h"
#include "tensor/core/philox.h"

using namespace lithe;

namespace {

// Rounds to nearest even with `digits` significant bits, subnormals below 2^least_exponent, and
// infinity at `overflow` and above: by scaling and nearbyint, without any bit pattern.
double round_reference(double x, int digits, int least_exponent, double overflow) {
  if (!std::isfinite(x) || x == 0) {
    return x;
  }
  int exponent = 0;
  std::frexp(x, &exponent);  // |x| in [2^(exponent-1), 2^exponent)
  const double ulp = std::ldexp(1.0, std::max(exponent - 1, least_exponent) - (digits - 1));
  const double rounded = std::nearbyint(x / ulp) * ulp;
  return std::abs(rounded) >= overflow ? std::copysign(INFINITY, x) : rounded;
}

double bf16_reference(double x) { return round_reference(x, 8, -126, 0x1p128); }
double f16_reference(double x) { return round_reference(x, 11, -14, 65536.0); }

template <typename T>
bool is_nan_bits(uint16_t bits) {
  return std::is_same_v<T, bf16> ? (bits & 0x7fff) > 0x7f80 : (bits & 0x7fff) > 0x7c00;
}

template <typename T>
T from_bits(uint32_t bits) {
  T out;
  out.bits = static_cast<uint16_t>(bits);
  return out;
}

// Neighbouring values, their midpoint, and the floats next to the midpoint.
template <typename T>
int count_wrong_roundings(double (*reference)(double)) {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    if (is_nan_bits<T>(static_cast<uint16_t>(bits))) {
      continue;
    }
    const auto value = static_cast<float>(from_bits<T>(bits));
    const bool has_next = !is_nan_bits<T>(static_cast<uint16_t>(bits + 1)) && bits % 32768 != 32767;
    const float next = has_next ? static_cast<float>(from_bits<T>(bits + 1)) : value;
    const auto middle = static_cast<float>((double{value} + double{next}) / 2);
    for (const float x :
         {value, middle, std::nextafter(middle, INFINITY), std::nextafter(middle, -INFINITY)}) {
      if (std::isfinite(x)) {
        const double got = static_cast<float>(T(x));
        const double want = reference(x);
        wrong += got != want || std::signbit(got) != std::signbit(want) ? 1 : 0;
      }
    }
  }
  return wrong;
}

template <typename T>
int count_wrong_round_trips() {
  int wrong = 0;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const T value = from_bits<T>(bits);
    const T back(static_cast<float>(value));
    if (is_nan_bits<T>(value.bits)) {
      wrong += is_nan_bits<T>(back.bits) ? 0 : 1;
    } else {
      wrong += back.bits == value.bits ? 0 : 1;
    }
  }
  return wrong;
}

}  // namespace

TEST_CASE("all 65536 patterns of bf16 and fp16 survive a round trip through float") {
  CHECK(count_wrong_round_trips<bf16>() == 0);
  CHECK(count_wrong_round_trips<f16>() == 0);
}

TEST_CASE("fp16 patterns mean what IEEE 754 says") {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const int exponent = static_cast<int>(bits >> 10);
    const double mantissa = bits & 0x3ff;
    const double want =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    REQUIRE(static_cast<float>(from_bits<f16>(bits)) == want);
    REQUIRE(static_cast<float>(from_bits<f16>(bits | 0x8000)) == -want);
  }
  CHECK(static_cast<float>(from_bits<f16>(0x7c00)) == INFINITY);
  CHECK(static_cast<float>(from_bits<f16>(0xfc00)) == -INFINITY);
}

TEST_CASE("bf16 and fp16 round to nearest even at and around every midpoint") {
  CHECK(count_wrong_roundings<bf16>(bf16_reference) == 0);
  CHECK(count_wrong_roundings<f16>(f16_reference) == 0);
}

TEST_CASE("16-bit roundings of random floats agree with the reference") {
  int wrong = 0;
  for (uint64_t i = 0; i < 200000; ++i) {
    const auto x = std::bit_cast<float>(philox(1, 2, i).word[0]);
    if (std::isfinite(x)) {
      wrong += static_cast<float>(bf16(x)) == bf16_reference(x) ? 0 : 1;
      wrong += static_cast<float>(f16(x)) == f16_reference(x) ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("edges of the 16-bit types") {
  CHECK(bf16(INFINITY).bits == 0x7f80);
  CHECK(f16(-INFINITY).bits == 0xfc00);
  CHECK(f16(65504.0f).bits == 0x7bff);
  CHECK(f16(65519.996f).bits == 0x7bff);
  CHECK(f16(65520.0f).bits == 0x7c00);
  CHECK(f16(0x1p-24f).bits == 1);
  CHECK(f16(0x1p-25f).bits == 0);  // the tie goes to the even zero
  CHECK(f16(0x1.8p-24f).bits == 2);
  CHECK(f16(-0.0f).bits == 0x8000);
  CHECK(std::isnan(static_cast<float>(f16(NAN))));
  // A NaN whose payload lies in the low bits only must not become infinity.
  CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u)))));
  CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0xffffffffu)))));
}

TEST_CASE("dtype names round trip and sizes are right") {
  const int bits[] = {64, 32, 16, 16, 8, 8, 32, 64, 8, 4};
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto t = static_cast<DType>(i);
    CHECK(dtype_from_name(dtype_name(t)) == t);
    CHECK(dtype_bits(t) == bits[i]);
    CHECK(is_floating(t) == (i < 4));
  }
  CHECK_FALSE(dtype_from_name("float").has_value());
  CHECK_FALSE(dtype_from_name("").has_value());
}

TEST_CASE("convert keeps integers exact and widens halves through float") {
  CHECK(convert<int64_t>(int32_t{-7}) == -7);
  CHECK(convert<double>(int64_t{1} << 52) == 0x1p52);
  CHECK(convert<bool>(2.0f));
  CHECK_FALSE(convert<bool>(0.0f));
  CHECK(convert<double>(bf16(1.5f)) == 1.5);
  CHECK(convert<f16>(bf16(-2.25f)).bits == f16(-2.25f).bits);
  CHECK(convert<int32_t>(f16(3.75f)) == 3);
}
