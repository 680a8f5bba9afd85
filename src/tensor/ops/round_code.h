// Rounding to a whole number inside a range, with the same bits on host and device. Codes are
// computed in fp32 whatever the type of x, so that a type that holds the same numbers gets the same
// codes.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tensor/ops/dropout.h"

namespace lithe {

// NaN becomes `lowest`.
LITHE_HOST_DEVICE inline float clamp_code(float x, float lowest, float highest) {
#ifdef __CUDA_ARCH__
  return fminf(fmaxf(x, lowest), highest);  // the same in half the instructions
#else
  x = x > lowest ? x : lowest;
  return x < highest ? x : highest;
#endif
}

// The whole number nearest to x, ties to even, in the low bits as two's complement; |x| < 2^22. The
// addition leaves no bits for a fraction, so it rounds, and the mantissa counts on from 1.5 * 2^23.
LITHE_HOST_DEVICE inline uint32_t nearest_code(float x) {
  const float shifted = x + 12582912.0f;
  uint32_t bits = 0;
  memcpy(&bits, &shifted, 4);
  return bits;
}

// The whole number below or above x, above with the probability of x's fraction to within 2^-17;
// `lane` is 16 random bits. Never above a whole bound of x.
LITHE_HOST_DEVICE inline uint32_t random_code(float x, uint32_t lane) {
  const float below = floorf(x);
  const float u = (static_cast<float>(lane) + 0.5f) * (1.0f / 65536.0f);
  return static_cast<uint32_t>(static_cast<int32_t>(below) + (x - below > u ? 1 : 0));
}

// The 16 random bits of element i of a site in a step: the same lanes as dropout's.
LITHE_HOST_DEVICE inline uint32_t code_lane(uint64_t seed, uint64_t stream, int64_t i) {
  const PhiloxBlock block = dropout_block(seed, stream, static_cast<uint64_t>(i) / kDropoutLanes);
  return dropout_lane(block, static_cast<int>(i % kDropoutLanes));
}

// A 4-bit code as a number.
LITHE_HOST_DEVICE inline float signed_nibble(uint32_t code) {
  return static_cast<float>(static_cast<int32_t>((code & 15u) ^ 8u) - 8);
}

}  // namespace lithe
