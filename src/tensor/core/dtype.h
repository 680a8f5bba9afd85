// Element types. The 16-bit floats are storage types: arithmetic happens in float.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

#ifdef __CUDACC__
#define LITHE_HOST_DEVICE __host__ __device__
#else
#define LITHE_HOST_DEVICE
#endif

namespace lithe {

enum class DType : uint8_t { f64, f32, bf16, f16, i8, u8, i32, i64, boolean, i4 };
inline constexpr int kDTypeCount = 10;

// Bits of one element; i4 packs two neighbours in one byte, low nibble first.
constexpr int dtype_bits(DType t) {
  constexpr int kBits[kDTypeCount] = {64, 32, 16, 16, 8, 8, 32, 64, 8, 4};
  return kBits[static_cast<int>(t)];
}

constexpr std::string_view dtype_name(DType t) {
  constexpr std::string_view kNames[kDTypeCount] = {"fp64",  "fp32",  "bf16",  "fp16", "int8",
                                                    "uint8", "int32", "int64", "bool", "int4"};
  const int i = static_cast<int>(t);
  return i < kDTypeCount ? kNames[i] : "unknown";
}

// The dtype of a name as recipes write it ("fp32", "bf16", ...), or nothing.
std::optional<DType> dtype_from_name(std::string_view name);

constexpr bool is_floating(DType t) {
  return t == DType::f64 || t == DType::f32 || t == DType::bf16 || t == DType::f16;
}

// bfloat16: the upper half of a float; rounds to nearest even, keeps NaN quiet.
struct bf16 {
  uint16_t bits = 0;
  bf16() = default;
  bf16(const bf16&) = default;
  // Written out because GCC does not vectorise loops that copy a struct from a temporary.
  LITHE_HOST_DEVICE bf16& operator=(const bf16& other) {
    bits = other.bits;
    return *this;
  }
  LITHE_HOST_DEVICE explicit bf16(float value) {
    uint32_t u = 0;
    memcpy(&u, &value, 4);
    const bool is_nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? static_cast<uint16_t>((u >> 16) | 0x40u)
                  : static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  LITHE_HOST_DEVICE explicit bf16(double value) : bf16(static_cast<float>(value)) {}
  LITHE_HOST_DEVICE operator float() const {  // NOLINT: storage type, reads as float on purpose
    const uint32_t u = static_cast<uint32_t>(bits) << 16;
    float out = 0;
    memcpy(&out, &u, 4);
    return out;
  }
};

// IEEE half precision, by bit arithmetic so that host and device agree.
struct f16 {
  uint16_t bits = 0;
  f16() = default;
  f16(const f16&) = default;
  LITHE_HOST_DEVICE f16& operator=(const f16& other) {
    bits = other.bits;
    return *this;
  }
  LITHE_HOST_DEVICE explicit f16(float value) {
    uint32_t u = 0;
    memcpy(&u, &value, 4);
    const uint32_t sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    uint32_t out = 0;
    if (u > 0x7f800000u) {
      out = 0x7e00u;  // NaN
    } else if (u >= 0x47800000u) {
      out = 0x7c00u;  // 65536 and above; 65520..65535 round up below
    } else if (u < 0x38800000u) {
      // Subnormal: adding 0.5 aligns the mantissa so that the hardware rounds to nearest even.
      float f = 0;
      memcpy(&f, &u, 4);
      f += 0.5f;
      memcpy(&out, &f, 4);
      out -= 0x3f000000u;
    } else {
      const uint32_t odd = (u >> 13) & 1u;
      out = (u + 0xc8000fffu + odd) >> 13;
    }
    bits = static_cast<uint16_t>(sign | out);
  }
  LITHE_HOST_DEVICE explicit f16(double value) : f16(static_cast<float>(value)) {}
  LITHE_HOST_DEVICE operator float() const {  // NOLINT: storage type, reads as float on purpose
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1fu;
    const uint32_t mantissa = bits & 0x3ffu;
    uint32_t u = 0;
    if (exponent == 0x1fu) {
      u = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent != 0) {
      u = sign | ((exponent + 112u) << 23) | (mantissa << 13);
    } else {
      const float f = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
      memcpy(&u, &f, 4);
      u |= sign;
    }
    float out = 0;
    memcpy(&out, &u, 4);
    return out;
  }
};

template <typename T>
struct dtype_of;
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of<f16> {
  static constexpr DType value = DType::f16;
};
template <>
struct dtype_of<int8_t> {
  static constexpr DType value = DType::i8;
};
template <>
struct dtype_of<uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct dtype_of<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct dtype_of<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct dtype_of<bool> {
  static constexpr DType value = DType::boolean;
};

// The type sums are kept in: double for fp64, float for the rest.
template <typename T>
struct accumulator {
  using type = float;
};
template <>
struct accumulator<double> {
  using type = double;
};
template <typename T>
using acc_t = typename accumulator<T>::type;

}  // namespace lithe
