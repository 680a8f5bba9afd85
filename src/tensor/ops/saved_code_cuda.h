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

// Codes kV neighbours, as their type holds them, from element `first` on, a multiple of kV. The
// whole warp takes part; lanes outside of the tensor say so.
template <int kV>
__device__ inline void encode_lanes(const CodeTo& c, const float (&v)[kV], int64_t first,
                                    bool inside) {
  float factor = c.factor;
  if (c.kind == SavedCode::Kind::quantized) {
    float largest = 0;
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      const float a = fabsf(v[j]);
      largest = inside && a > largest ? a : largest;
    }
    for (int step = (1 << c.group_bits) / kV / 2; step > 0; step /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    }
    const float scale = stored_scale(largest, c.highest, c.scale);
    factor = inverse_scale(scale);
    if (inside && (first & ((int64_t{1} << c.group_bits) - 1)) == 0) {
      put_scale(c.scales, c.scale, first >> c.group_bits, scale);
    }
  }
  if (!inside) {
    return;
  }
  uint32_t low = 0;
  uint32_t high = 0;
  if (c.bits == 8) {
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      (j < 4 ? low : high) |= (code_at(c, v[j], factor) & 255u) << (8 * (j % 4));
    }
    store_bytes<kV>(c.codes + first, low, high);
  } else {
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      low |= (code_at(c, v[j], factor) & 15u) << (4 * j);
    }
    store_bytes<kV / 2>(c.codes + first / 2, low, high);
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

// The code as a number by one addition: 2^23 + code has the code as its last bits.
__device__ inline float signed_byte_fast(uint32_t code) {
  return __uint_as_float(0x4b000000u | ((code & 255u) ^ 128u)) - 8388736.0f;
}
__device__ inline float signed_nibble_fast(uint32_t code) {
  return __uint_as_float(0x4b000000u | ((code & 15u) ^ 8u)) - 8388616.0f;
}

}  // namespace lithe::device
