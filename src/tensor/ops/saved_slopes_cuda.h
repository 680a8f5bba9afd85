// Slopes of activations from codes of what they keep: of fixed point the slope of every code stands
// in a table, of codes with scales it is computed as activation_grad computes it. Device-only.
#pragma once

#include "tensor/ops/activation_codes.h"
#include "tensor/ops/cuda_activation.h"
#include "tensor/ops/cuda_launch.h"
#include "tensor/ops/cuda_map.h"
#include "tensor/ops/saved_code_cuda.h"

namespace lithe::device {

// Codes of kVector neighbours as words: bytes of a pack are taken apart as soon as they arrive, and
// the load behind them waits. Of 4 bits at least a byte.
template <int kBits, int kVector>
struct CodeWords {
  static constexpr int kBytes = kVector * kBits < 8 ? 1 : kVector * kBits / 8;
  uint32_t at[(kBytes + 3) / 4];

  // From element `first` on, a multiple of kVector.
  __device__ void load(const uint8_t* codes, int64_t first) {
    const uint8_t* from = codes + (kBits == 8 ? first : first >> 1);
    if constexpr (kBytes == 8) {
      const auto two = *reinterpret_cast<const uint2*>(from);
      at[0] = two.x;
      at[1] = two.y;
    } else if constexpr (kBytes == 4) {
      at[0] = *reinterpret_cast<const uint32_t*>(from);
    } else if constexpr (kBytes == 2) {
      at[0] = *reinterpret_cast<const uint16_t*>(from);
    } else {
      at[0] = kBits == 4 && kVector == 1 ? static_cast<uint32_t>(*from) >> (first % 2 * 4) : *from;
    }
  }
  __device__ uint32_t operator[](int j) const {
    return (at[j * kBits / 32] >> (j * kBits % 32)) & ((1u << kBits) - 1);
  }
  // Code j as a signed number.
  __device__ float number(int j) const {
    return kBits == 8 ? shifted_byte(at[j / 4] ^ kSignBits8, j % 4)
                      : shifted_nibble(at[0] ^ kSignBits4, j);
  }
};

template <Activation kKind, typename T>
__device__ inline acc_t<T> slope_of(T kept) {
  if constexpr (std::is_same_v<T, double>) {
    return activation_slope<kKind>(kept);
  } else {
    return slope_fast<kKind>(widen<float>(kept));
  }
}

// The slope at what each code stands for, as activation_grad has it from the decoded tensor.
template <int kBits, typename T_>
struct SlopeTable {
  using T = T_;
  using A = acc_t<T>;
  template <int kVector>
  using Loaded = CodeWords<kBits, kVector>;
  static constexpr int kCodes = 1 << kBits;
  Activation kind;
  bool is_signed;
  float step;
  const uint8_t* codes;

  __device__ static A* slopes() {
    __shared__ A of_code[kCodes];
    return of_code;
  }
  // Of the `threads` that look slopes up; they meet before the first does.
  __device__ void make(int thread, int threads) const {
    for (int i = thread; i < kCodes; i += threads) {
      slopes()[i] = slope_at(narrow<T>(number(static_cast<uint32_t>(i)) * step));
    }
  }
  // The same of a whole block.
  __device__ void begin() const {
    make(static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x),
         static_cast<int>(blockDim.x * blockDim.y));
    __syncthreads();
  }
  template <int kVector>
  __device__ Loaded<kVector> load(int64_t at) const {
    Loaded<kVector> code;
    code.load(codes, at);
    return code;
  }
  // v of kVector neighbours from element `at` on times their slopes.
  template <int kVector>
  __device__ void multiply(const Loaded<kVector>& code, int64_t /*at*/, A (&v)[kVector]) const {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      v[j] *= slopes()[code[j]];
    }
  }
  // Of those behind the last whole pack.
  __device__ A of_element(int64_t i) const {
    const uint32_t byte = codes[i * kBits / 8];
    return slopes()[kBits == 8 ? byte : (byte >> (i % 2 * 4)) & 15u];
  }
  __device__ float number(uint32_t code) const {
    if (!is_signed) {
      return static_cast<float>(code);
    }
    return kBits == 4 ? signed_nibble(code) : static_cast<float>(static_cast<int8_t>(code));
  }
  __device__ A slope_at(T kept) const {
    switch (kind) {
      case Activation::gelu:
        return slope_of<Activation::gelu>(kept);
      case Activation::gelu_tanh:
        return slope_of<Activation::gelu_tanh>(kept);
      case Activation::quick_gelu:
        return slope_of<Activation::quick_gelu>(kept);
      case Activation::silu:
        return slope_of<Activation::silu>(kept);
      case Activation::relu:
        return slope_of<Activation::relu>(kept);
      case Activation::tanh:
        return slope_of<Activation::tanh>(kept);
      case Activation::sigmoid:
        return slope_of<Activation::sigmoid>(kept);
      default:
        return A(1);
    }
  }
};

// kVector numbers as T holds them.
template <typename T, int kVector>
__device__ inline void round_to(const float (&x)[kVector], acc_t<T> (&v)[kVector]) {
  if constexpr (kVector % kWide<T> == 0) {  // in pairs
#pragma unroll
    for (int i = 0; i < kVector; i += kWide<T>) {
      acc_t<T> part[kWide<T>];
#pragma unroll
      for (int j = 0; j < kWide<T>; ++j) {
        part[j] = x[i + j];
      }
      unpack<T>(pack<T>(part), part);
#pragma unroll
      for (int j = 0; j < kWide<T>; ++j) {
        v[i + j] = part[j];
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      v[j] = widen<acc_t<T>>(narrow<T>(x[j]));
    }
  }
}

// The slope at a code times its group's scale; kVector neighbours are of one group.
template <Activation kKind, int kBits, typename T_>
struct ScaledSlopes {
  using T = T_;
  using A = acc_t<T>;
  template <int kVector>
  struct Loaded {
    CodeWords<kBits, kVector> code;
    uint32_t scale;
  };
  CodeFrom from;

  __device__ void make(int /*thread*/, int /*threads*/) const {}
  __device__ void begin() const {}
  template <int kVector>
  __device__ Loaded<kVector> load(int64_t at) const {
    Loaded<kVector> loaded;
    loaded.code.load(from.codes, at);
    loaded.scale = *scale_word(from.scales, from.scale, at >> from.group_bits);
    return loaded;
  }
  template <int kVector>
  __device__ void multiply(const Loaded<kVector>& loaded, int64_t at, A (&v)[kVector]) const {
    const float factor = scale_number(loaded.scale, from.scale, at >> from.group_bits);
    float x[kVector];
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      x[j] = loaded.code.number(j) * factor;
    }
    A kept[kVector];
    round_to<T>(x, kept);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if constexpr (std::is_same_v<T, double>) {
        v[j] *= activation_slope<kKind>(kept[j]);
      } else {
        v[j] *= slope_fast<kKind>(kept[j]);
      }
    }
  }
};

// Calls take(slopes) with the codes and scales that `parts` begins with.
template <typename T, typename Take>
void with_slopes(const ActivationCodesGradAttrs& attrs, std::span<const TensorRef> parts,
                 Take&& take) {
  const auto of_bits = [&]<int kBits>() {
    if (attrs.code.kind == SavedCode::Kind::quantized) {
      dispatch_activation(attrs.grad.kind, [&]<Activation kKind>() {
        take(ScaledSlopes<kKind, kBits, T>{code_from(attrs.code, parts[0], parts[1])});
      });
      return;
    }
    const FixedPointAttrs& fixed = attrs.code.fixed;
    take(SlopeTable<kBits, T>{attrs.grad.kind, fixed.is_signed && !fixed.unit,
                              1.0f / fixed_point_grid(fixed).factor, parts[0].as<uint8_t>()});
  };
  const int bits = attrs.code.kind == SavedCode::Kind::quantized
                       ? attrs.code.bits
                       : fixed_point_grid(attrs.code.fixed).bits;
  bits == 4 ? of_bits.template operator()<4>() : of_bits.template operator()<8>();
}

}  // namespace lithe::device
