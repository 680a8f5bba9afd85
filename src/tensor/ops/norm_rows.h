// Rows of layer norm on the CPU, for the plain op and the one fused with dropout and residual.
#pragma once

#include <cmath>
#include <cstdint>

#include "tensor/core/tensor.h"

namespace lithe {

template <typename A>
A norm_share(int64_t width) {
  return width == 0 ? A(0) : A(1) / static_cast<A>(width);
}

template <typename T, typename A = acc_t<T>>
void layer_norm_row(const T* x, const T* gamma, const T* beta, T* y, int64_t width, A eps, A* mean,
                    A* rstd) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) {
    sum += static_cast<A>(x[i]);
  }
  const A m = sum * norm_share<A>(width);
  A squares = 0;  // around the mean: the difference of two large sums would lose digits
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < width; ++i) {
    const A d = static_cast<A>(x[i]) - m;
    squares += d * d;
  }
  const A r = A(1) / std::sqrt(squares * norm_share<A>(width) + eps);
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const A scaled = (static_cast<A>(x[i]) - m) * r * static_cast<A>(gamma[i]);
    y[i] = T(scaled + static_cast<A>(beta[i]));
  }
  *mean = m;
  *rstd = r;
}

// With u = dy * gamma and d = x - mean: dx = rstd (u - shift - d slope), shift = mean(u), slope =
// rstd² mean(u d).
template <typename A>
struct LayerNormSlope {
  A mean;
  A rstd;
  A shift;
  A slope;

  A dx(A dy, A x, A gamma) const { return rstd * (dy * gamma - shift - (x - mean) * slope); }
};

template <typename T, typename A = acc_t<T>>
LayerNormSlope<A> layer_norm_slope(const T* dy, const T* x, const T* gamma, int64_t width, A mean,
                                   A rstd) {
  A sum = 0;
  A dot = 0;
#pragma omp simd reduction(+ : sum, dot)
  for (int64_t i = 0; i < width; ++i) {
    const A u = static_cast<A>(dy[i]) * static_cast<A>(gamma[i]);
    sum += u;
    dot += u * (static_cast<A>(x[i]) - mean);
  }
  const A share = norm_share<A>(width);
  return {mean, rstd, sum * share, dot * share * rstd * rstd};
}

// One row's terms of the parameters' gradients; null: not wanted.
template <typename T, typename A = acc_t<T>>
void add_layer_norm_parameters(const T* dy, const T* x, int64_t width, A mean, A rstd,
                               A* gamma_sums, A* beta_sums) {
  if (gamma_sums != nullptr && beta_sums != nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      gamma_sums[i] += static_cast<A>(dy[i]) * ((static_cast<A>(x[i]) - mean) * rstd);
      beta_sums[i] += static_cast<A>(dy[i]);
    }
  } else if (gamma_sums != nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      gamma_sums[i] += static_cast<A>(dy[i]) * ((static_cast<A>(x[i]) - mean) * rstd);
    }
  } else if (beta_sums != nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      beta_sums[i] += static_cast<A>(dy[i]);
    }
  }
}

}  // namespace lithe
