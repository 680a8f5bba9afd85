// f(x) and f'(x) of each activation, shared by the kernels of all backends and by fused ones.
#pragma once

#include "tensor/ops/activation.h"
#include "tensor/ops/vector_math.h"

namespace lithe {

inline constexpr double kInvSqrt2 = 0.70710678118654752440;
inline constexpr double kInvSqrt2Pi = 0.39894228040143267794;
inline constexpr double kSqrt2OverPi = 0.79788456080286535588;

template <Activation kKind, typename A>
LITHE_HOST_DEVICE inline A activate(A x) {
  if constexpr (kKind == Activation::gelu) {
    return A(0.5) * x * (A(1) + vec::erf(x * A(kInvSqrt2)));
  } else if constexpr (kKind == Activation::gelu_tanh) {
    return A(0.5) * x * (A(1) + vec::tanh(A(kSqrt2OverPi) * (x + A(0.044715) * x * x * x)));
  } else if constexpr (kKind == Activation::quick_gelu) {
    return x * vec::sigmoid(A(1.702) * x);
  } else if constexpr (kKind == Activation::silu) {
    return x * vec::sigmoid(x);
  } else if constexpr (kKind == Activation::relu) {
    return x < A(0) ? A(0) : x;  // NaN passes
  } else if constexpr (kKind == Activation::tanh) {
    return vec::tanh(x);
  } else if constexpr (kKind == Activation::sigmoid) {
    return vec::sigmoid(x);
  } else {
    return x;
  }
}

// dy/dx from the kept tensor: x, for relu, tanh and sigmoid y.
template <Activation kKind, typename A>
LITHE_HOST_DEVICE inline A activation_slope(A kept) {
  if constexpr (kKind == Activation::gelu) {
    const A phi = vec::exp(A(-0.5) * kept * kept) * A(kInvSqrt2Pi);
    return A(0.5) * (A(1) + vec::erf(kept * A(kInvSqrt2))) + kept * phi;
  } else if constexpr (kKind == Activation::gelu_tanh) {
    const A t = vec::tanh(A(kSqrt2OverPi) * (kept + A(0.044715) * kept * kept * kept));
    const A inner = A(kSqrt2OverPi) * (A(1) + A(3 * 0.044715) * kept * kept);
    return A(0.5) * (A(1) + t) + A(0.5) * kept * (A(1) - t * t) * inner;
  } else if constexpr (kKind == Activation::quick_gelu) {
    const A s = vec::sigmoid(A(1.702) * kept);
    return s + A(1.702) * kept * s * (A(1) - s);
  } else if constexpr (kKind == Activation::silu) {
    const A s = vec::sigmoid(kept);
    return s * (A(1) + kept * (A(1) - s));
  } else if constexpr (kKind == Activation::relu) {
    return kept > A(0) ? A(1) : A(0);
  } else if constexpr (kKind == Activation::tanh) {
    return A(1) - kept * kept;
  } else if constexpr (kKind == Activation::sigmoid) {
    return kept * (A(1) - kept);
  } else {
    return A(1);
  }
}

// Calls f.operator()<kind>() for a run-time kind.
template <typename F>
decltype(auto) dispatch_activation(Activation kind, F&& f) {
  switch (kind) {
    case Activation::gelu:
      return f.template operator()<Activation::gelu>();
    case Activation::gelu_tanh:
      return f.template operator()<Activation::gelu_tanh>();
    case Activation::quick_gelu:
      return f.template operator()<Activation::quick_gelu>();
    case Activation::silu:
      return f.template operator()<Activation::silu>();
    case Activation::relu:
      return f.template operator()<Activation::relu>();
    case Activation::tanh:
      return f.template operator()<Activation::tanh>();
    case Activation::sigmoid:
      return f.template operator()<Activation::sigmoid>();
    default:
      return f.template operator()<Activation::none>();
  }
}

}  // namespace lithe
