// Branch-free single-precision functions that compilers turn into vector code inside `omp simd`
// loops; in double the standard library is used, since fp64 is the oracle. On a GPU they are CUDA's
// own, which need no vectorising. Coefficients: own Chebyshev fits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "tensor/core/dtype.h"

namespace lithe::vec {

// exp with about 2 ulp; 0 below -87.3, infinity above 88.7; NaN stays NaN.
LITHE_HOST_DEVICE inline float exp(float x) {
#ifdef __CUDA_ARCH__
  return ::expf(x);
#else
  const float clamped = x > 88.8f ? 88.8f : (x < -87.4f ? -87.4f : x);
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const float shifted = clamped * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.3948590e-3f;
  p = p * r + 8.3751353e-3f;
  p = p * r + 4.1666218e-2f;
  p = p * r + 1.6666415e-1f;
  p = p * r + 5.0000001e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // Two factors, so that neither leaves the range of normal exponents.
  const int32_t k = std::bit_cast<int32_t>(shifted) - 0x4B400000;
  const int32_t half = k >> 1;
  const float a = std::bit_cast<float>((half + 127) << 23);
  const float b = std::bit_cast<float>((k - half + 127) << 23);
  const float y = p * a * b;
  const float low = x < -87.33655f ? 0.0f : y;
  const float high = x > 88.72284f ? HUGE_VALF : low;
  return x != x ? x : high;
#endif
}
LITHE_HOST_DEVICE inline double exp(double x) { return ::exp(x); }

// tanh with absolute error below 2e-7.
LITHE_HOST_DEVICE inline float tanh(float x) {
#ifdef __CUDA_ARCH__
  return ::tanhf(x);
#else
  const float a = std::fabs(x);
  const float s = x * x;
  float p = -5.3151525e-3f;
  p = p * s + 2.0265352e-2f;
  p = p * s - 5.3614614e-2f;
  p = p * s + 1.3329727e-1f;
  p = p * s - 3.3333197e-1f;
  p = p * s + 1.0f;
  const float big = 1.0f - 2.0f / (vec::exp(2.0f * a) + 1.0f);
  return a < 0.67f ? x * p : std::copysign(big, x);
#endif
}
LITHE_HOST_DEVICE inline double tanh(double x) { return ::tanh(x); }

LITHE_HOST_DEVICE inline float sigmoid(float x) { return 1.0f / (1.0f + vec::exp(-x)); }
LITHE_HOST_DEVICE inline double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }

// erf with absolute error below 2e-7.
LITHE_HOST_DEVICE inline float erf(float x) {
#ifdef __CUDA_ARCH__
  return ::erff(x);
#else
  const float a = std::fabs(x);
  const float s = x * x;
  float p = -9.6735903e-6f;
  p = p * s + 1.1268254e-4f;
  p = p * s - 8.4843964e-4f;
  p = p * s + 5.2210535e-3f;
  p = p * s - 2.6865438e-2f;
  p = p * s + 1.1283783e-1f;
  p = p * s - 3.7612638e-1f;
  p = p * s + 1.1283792f;
  const float t = a > 4.0f ? 4.0f : a;
  float q = -1.6150450e-6f;
  q = q * t + 4.5611021e-5f;
  q = q * t - 5.9295053e-4f;
  q = q * t + 4.7411179e-3f;
  q = q * t - 2.6367415e-2f;
  q = q * t + 1.0998330e-1f;
  q = q * t + 6.3193134e-1f;
  q = q * t + 1.1301703f;
  q = q * t - 3.0417677e-4f;
  const float big = 1.0f - vec::exp(-q);
  return a < 1.0f ? x * p : std::copysign(big, x);
#endif
}
LITHE_HOST_DEVICE inline double erf(double x) { return ::erf(x); }

}  // namespace lithe::vec
