// Activations and their slopes with the device's fast instructions, within rounding of
// activation_math.h. Device-only.
#pragma once

#include "tensor/ops/activation_math.h"
#include "tensor/ops/cuda_fast_math.h"
#include "tensor/ops/cuda_vector.h"

namespace lithe::device {

constexpr float kLog2E = 1.44269504089f;

__device__ inline float sigmoid_fast(float x) {
  return reciprocal_fast(1.0f + exp2_fast(-kLog2E * x));
}

// The normal distribution at x: `upto` its probability of values below x, `bell` = exp(-x²/2). With
// s = 1 / (1 + 0.33 |x|) the tail is bell times a polynomial in s, within 7e-8 (own fit, least
// largest error); gelu and its slope need the same exponential.
struct Normal {
  float upto;
  float bell;
};
__device__ inline Normal normal_at(float x) {
  const float bell = exp2_fast(x * x * (-0.5f * kLog2E));
  const float s = reciprocal_fast(fmaf(0.33f, fabsf(x), 1.0f));
  float tail = -0.11067714f;
  tail = fmaf(tail, s, 0.37929653f);
  tail = fmaf(tail, s, -0.09625532f);
  tail = fmaf(tail, s, 0.20623905f);
  tail = fmaf(tail, s, 0.1213969f);
  tail *= s * bell;
  return {x > 0.0f ? 1.0f - tail : tail, bell};
}

// 2 of tanh's argument in gelu_tanh: (1 + tanh(u)) / 2 = sigmoid(2 u).
__device__ inline float gelu_tanh_argument(float x) {
  constexpr auto kTwice = static_cast<float>(2 * kSqrt2OverPi);
  return kTwice * x * fmaf(0.044715f, x * x, 1.0f);
}

template <Activation kKind>
__device__ inline float activate_fast(float x) {
  if constexpr (kKind == Activation::gelu) {
    return x * normal_at(x).upto;
  } else if constexpr (kKind == Activation::gelu_tanh) {
    return x * sigmoid_fast(gelu_tanh_argument(x));
  } else if constexpr (kKind == Activation::quick_gelu) {
    return x * sigmoid_fast(1.702f * x);
  } else if constexpr (kKind == Activation::silu) {
    return x * sigmoid_fast(x);
  } else if constexpr (kKind == Activation::sigmoid) {
    return sigmoid_fast(x);
  } else {
    return activate<kKind>(x);
  }
}

template <Activation kKind>
__device__ inline float slope_fast(float kept) {
  if constexpr (kKind == Activation::gelu) {
    const Normal n = normal_at(kept);
    return fmaf(kept * n.bell, static_cast<float>(kInvSqrt2Pi), n.upto);
  } else if constexpr (kKind == Activation::gelu_tanh) {
    constexpr auto kTwice = static_cast<float>(2 * kSqrt2OverPi);
    const float s = sigmoid_fast(gelu_tanh_argument(kept));
    const float inner = kTwice * fmaf(3 * 0.044715f, kept * kept, 1.0f);
    return s * fmaf(kept * (1.0f - s), inner, 1.0f);
  } else if constexpr (kKind == Activation::quick_gelu) {
    const float s = sigmoid_fast(1.702f * kept);
    return s * fmaf(1.702f * kept, 1.0f - s, 1.0f);
  } else if constexpr (kKind == Activation::silu) {
    const float s = sigmoid_fast(kept);
    return s * fmaf(kept, 1.0f - s, 1.0f);
  } else {
    return activation_slope<kKind>(kept);
  }
}

template <Activation kKind, typename T>
struct Activate {
  __device__ T operator()(T x) const {
    if constexpr (std::is_same_v<T, double>) {
      return activate<kKind>(x);
    } else {
      return narrow<T>(activate_fast<kKind>(widen<float>(x)));
    }
  }
};

template <Activation kKind, typename T>
struct ActivateBackward {
  __device__ T operator()(T dy, T kept) const {
    if constexpr (std::is_same_v<T, double>) {
      return dy * activation_slope<kKind>(kept);
    } else {
      return narrow<T>(widen<float>(dy) * slope_fast<kKind>(widen<float>(kept)));
    }
  }
};

}  // namespace lithe::device
