// Coding and decoding on the way through another kernel: a lane has some neighbours in registers,
// the lanes of a group are neighbours in a warp. Device-only.
#pragma once

#include <bit>
#include <span>

#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/quantize_scale.h"
#include "tensor/ops/round_code.h"
#include "tensor/ops/saved_code.h"

namespace lithe::device {

// Where a code goes and how it is made.
struct CodeTo {
  SavedCode::Kind kind = SavedCode::Kind::none;
  DType scale = DType::f32;
  int32_t bits = 8;  // of a code
  int32_t group_bits = 0;
  float factor = 1;  // of fixed point
  float lowest = 0;
  float highest = 0;
  uint8_t* codes = nullptr;
  void* scales = nullptr;
};

inline CodeTo code_to(const SavedCode& code, std::span<const TensorRef> parts) {
  CodeTo to;
  to.kind = code.kind;
  if (code.kind == SavedCode::Kind::fixed_point) {
    const FixedPointGrid grid = fixed_point_grid(code.fixed);
    to.bits = grid.bits;
    to.factor = grid.factor;
    to.lowest = grid.lowest;
    to.highest = grid.highest;
    to.codes = parts[0].as<uint8_t>();
  } else if (code.kind == SavedCode::Kind::quantized) {
    const QuantizeLayout layout(parts[0].shape, code.quantize());
    to.scale = code.scale;
    to.bits = code.bits;
    to.group_bits = std::countr_zero(static_cast<uint64_t>(layout.group));
    to.highest = code.bits == 4 ? 7.0f : 127.0f;
    to.lowest = -to.highest;
    to.codes = parts[0].as<uint8_t>();
    to.scales = parts[1].data;
  }
  return to;
}

template <int kBytes>
__device__ inline void store_bytes(uint8_t* to, uint32_t low, uint32_t high) {
  if constexpr (kBytes == 8) {
    *reinterpret_cast<uint2*>(to) = make_uint2(low, high);
  } else if constexpr (kBytes == 4) {
    *reinterpret_cast<uint32_t*>(to) = low;
  } else {
    static_assert(kBytes == 2);
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(low);
  }
}

__device__ inline uint32_t code_at(const CodeTo& c, float x, float factor) {
  return nearest_code(clamp_code(x * factor, c.lowest, c.highest));
}

// Of kPacks groups that each spread over the same `lanes` neighbouring lanes (a power of two),
// which bring their largest magnitudes: the scales' inverses. Lane i of them makes the scale of
// group i alone and calls put(i, scale): a division is too long for all of them to make all. The
// whole warp takes part.
template <int kPacks, typename Put>
__device__ inline void share_scales(float (&largest)[kPacks], int lanes, float highest, DType type,
                                    float (&inverse)[kPacks], Put&& put) {
  for (int step = lanes / 2; step > 0; step /= 2) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(0xffffffffu, largest[i], step));
    }
  }
  const int own = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int leader = static_cast<int>(threadIdx.x % 32) - own;
  for (int base = 0; base < kPacks; base += lanes) {
    float chosen = largest[0];  // by order: equality would make an array in memory of the maxima
#pragma unroll
    for (int i = 1; i < kPacks; ++i) {
      chosen = i <= base + own ? largest[i] : chosen;
    }
    const float scale = stored_scale(chosen, highest, type);
    if (base + own < kPacks) {
      put(base + own, scale);
    }
    const float made = inverse_scale(scale);
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const float other = __shfl_sync(0xffffffffu, made, leader + ((i - base) & (lanes - 1)));
      inverse[i] = i >= base && i < base + lanes ? other : inverse[i];
    }
  }
}

// Four codes' low bytes as one word.
__device__ inline uint32_t four_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

// The 4-bit codes nearest to kV numbers of a code's range, as nearest_code(), in one word. The sum
// that rounds also moves codes from -8 to 0, so that they can be shifted and added as they are;
// what they have in front of them, the number's exponent, is the same in all words.
template <int kV>
__device__ inline uint32_t nearest_nibbles(const float (&x)[kV], bool is_signed) {
  constexpr uint32_t kFront = [] {
    uint32_t sum = 0;
    for (int j = 0; j < kV; ++j) {
      sum += 0x4b400000u << (4 * j);  // 12582912, 1.5 * 2^23
    }
    return sum;
  }();
  const float shift = is_signed ? 12582920.0f : 12582912.0f;
  uint32_t word = 0;
#pragma unroll
  for (int j = kV - 1; j >= 0; --j) {
    word = word * 16 + __float_as_uint(x[j] + shift);
  }
  return (word - kFront) ^ (is_signed ? 0x88888888u : 0u);
}

// The codes of kV neighbours as they lie in memory: two words of bytes, or one of nibbles.
template <int kV>
__device__ inline uint2 code_bytes(const CodeTo& c, const float (&v)[kV], float factor) {
  uint32_t code[kV];
  uint32_t word[2] = {};
#pragma unroll
  for (int j = 0; j < kV; ++j) {
    code[j] = code_at(c, v[j], factor);
  }
#pragma unroll
  for (int j = 0; j < kV; j += 4) {
    word[j / 4] = four_bytes(code[j], code[j + 1], code[j + 2], code[j + 3]);
  }
  return make_uint2(word[0], word[1]);
}
template <int kV>
__device__ inline uint32_t code_nibbles(const CodeTo& c, const float (&v)[kV], float factor) {
  float scaled[kV];
#pragma unroll
  for (int j = 0; j < kV; ++j) {
    scaled[j] = clamp_code(v[j] * factor, c.lowest, c.highest);
  }
  return nearest_nibbles(scaled, c.lowest < 0);
}

template <int kV>
__device__ inline float largest_of(const float (&v)[kV]) {
  float largest = 0;  // NaN never wins
#pragma unroll
  for (int j = 0; j < kV; ++j) {
    largest = fmaxf(largest, fabsf(v[j]));
  }
  return largest;
}

// Codes kPacks packs of kV neighbours, as their type holds them; pack i begins at element `first` +
// i * `step`, a multiple of kV, and a group lies in one pack of neighbouring lanes. The whole warp
// takes part; `inside` says of each pack whether it is in the tensor.
template <int kPacks, int kV>
__device__ inline void encode_lanes(const CodeTo& c, const float (&v)[kPacks][kV], int64_t first,
                                    int step, const bool (&inside)[kPacks]) {
  float factor[kPacks];
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    factor[i] = c.factor;
  }
  if (c.kind == SavedCode::Kind::quantized) {
    float largest[kPacks];
    uint32_t is_inside = 0;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      largest[i] = inside[i] ? largest_of(v[i]) : 0.0f;
      is_inside |= inside[i] ? 1u << i : 0u;
    }
    const int lanes = (1 << c.group_bits) / kV;
    share_scales(largest, lanes, c.highest, c.scale, factor, [&](int i, float scale) {
      if (is_inside >> i & 1u) {
        put_scale(c.scales, c.scale, (first + int64_t{i} * step) >> c.group_bits, scale);
      }
    });
  }
  // All codes before the first store, so that they are made side by side.
  if (c.bits == 8) {
    uint2 words[kPacks];
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      words[i] = code_bytes(c, v[i], factor[i]);
    }
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (inside[i]) {
        store_bytes<kV>(c.codes + first + int64_t{i} * step, words[i].x, words[i].y);
      }
    }
  } else {
    uint32_t word[kPacks];
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      word[i] = code_nibbles(c, v[i], factor[i]);
    }
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (inside[i]) {
        store_bytes<kV / 2>(c.codes + ((first + int64_t{i} * step) >> 1), word[i], 0);
      }
    }
  }
}

// Fixed-point codes of the last n % kV elements, by one thread; `first` is even.
template <typename T>
__device__ inline void encode_rest(const CodeTo& c, const T* x, int64_t first, int64_t n) {
  const auto code = [&](int64_t i) { return code_at(c, widen<float>(x[i]), c.factor); };
  for (int64_t i = first; i < n; i += c.bits == 8 ? 1 : 2) {
    if (c.bits == 8) {
      c.codes[i] = static_cast<uint8_t>(code(i));
    } else {
      const uint32_t high = i + 1 < n ? code(i + 1) : 0u;
      c.codes[i / 2] = static_cast<uint8_t>((code(i) & 15u) | (high << 4));
    }
  }
}

// Where quantized codes come from.
struct CodeFrom {
  DType scale = DType::f32;
  int32_t bits = 8;
  int32_t group_bits = 0;
  const uint8_t* codes = nullptr;
  const void* scales = nullptr;
};

inline CodeFrom code_from(const SavedCode& code, const TensorRef& codes, const TensorRef& scales) {
  const QuantizeLayout layout(codes.shape, code.quantize());
  return {code.scale, code.bits, std::countr_zero(static_cast<uint64_t>(layout.group)),
          codes.as<uint8_t>(), scales.data};
}

// Code j of a word as a number, the words' codes moved to 0 and up by flipping their signs' bits;
// by one addition: 2^23 + code has the code as its last bits.
inline constexpr uint32_t kSignBits8 = 0x80808080u;
inline constexpr uint32_t kSignBits4 = 0x88888888u;
__device__ inline float shifted_byte(uint32_t word, int j) {
  return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440u + static_cast<uint32_t>(j))) -
         8388736.0f;
}
// A nibble stays where it is as far as a mantissa reaches: with the exponent of 2^(23 - 4 j), bit 4
// j counts 1. In assembly: the compiler makes two instructions of two constants.
__device__ inline float shifted_nibble(uint32_t word, int j) {
  if (j > 4) {
    return shifted_nibble(word >> 12, j - 3);
  }
  const auto power = static_cast<uint32_t>(127 + 23 - 4 * j) << 23;
  uint32_t bits;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;"
      : "=r"(bits)
      : "r"(word), "r"(15u << (4 * j)), "r"(power));  // word & mask | power
  return __uint_as_float(bits) - (__uint_as_float(power) + 8.0f);
}

// Scale i as the word of memory that it lies in, and as a number: many are loaded before the first
// is used, and one load whatever their type.
__device__ inline const uint32_t* scale_word(const void* scales, DType type, int64_t i) {
  return static_cast<const uint32_t*>(scales) + (i >> (type == DType::f32 ? 0 : 1));
}
__device__ inline float scale_number(uint32_t word, DType type, int64_t i) {
  const uint32_t bits = word >> (16 * (static_cast<uint32_t>(i) & 1u)) & 0xffffu;
  const float half = __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
  const float brain = __uint_as_float(bits << 16);
  const float other = type == DType::bf16 ? brain : __uint_as_float(word);
  return type == DType::f16 ? half : other;
}

}  // namespace lithe::device
