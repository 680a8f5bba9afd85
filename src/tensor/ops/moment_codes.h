// Block-wise 8-bit moments of Adam (after Dettmers et al., arXiv 2110.02861): 256 neighbours share
// two fp32 scales, the largest |m| and the largest sqrt(v) among them; a code is a value over its
// scale, rounded to a small float.
//
//   sqrt(v): 4 bits of exponent, 4 of mantissa: code c is 2^(E-127) (1 + M/16) for c + offset =
//            16 E + M; 255 is 1, 1 is 2^-15.9, 0 is 0. What is above 0 gets no code below 1, so
//            that no update divides by epsilon alone.
//   m:       a sign (bit 7), 4 bits of exponent, 3 of mantissa: 127 is 1, 1 is 2^-15.8, 0 is 0.
//
// The paper codes v itself with a dynamic map; the root needs half the range, and an update is as
// exact as the root is. One step changes v by a thousandth, far less than codes are apart, so
// rounding to the nearest would hold it where it is: codes are rounded up or down at random, right
// on average, by bits that follow from (step, element).
//
// All of it in fp32 with every rounding spelled out, so that every backend computes the same codes.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tensor/core/dtype.h"
#include "tensor/core/shape.h"

namespace lithe {

inline constexpr int kMomentBlock = 256;

inline int64_t moment_blocks(int64_t elements) {
  return elements / kMomentBlock + (elements % kMomentBlock != 0 ? 1 : 0);
}
// uint8: of each block the codes of m, then those of sqrt(v).
inline Shape moment_codes_shape(int64_t elements) {
  return {moment_blocks(elements), 2, kMomentBlock};
}
// fp32: of each block the largest |m|, then the largest sqrt(v).
inline Shape moment_scales_shape(int64_t elements) { return {moment_blocks(elements), 2}; }

LITHE_HOST_DEVICE inline uint32_t float_bits(float x) {
  uint32_t bits = 0;
  memcpy(&bits, &x, 4);
  return bits;
}
LITHE_HOST_DEVICE inline float float_of_bits(uint32_t bits) {
  float x = 0;
  memcpy(&x, &bits, 4);
  return x;
}

// 32 bits that look random (multiply and fold; a permutation of its argument).
LITHE_HOST_DEVICE inline uint32_t scramble(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}
// Of a block in a step (the count of updates, this one included); element `i` of it has
// scramble(key + i): the lower half rounds sqrt(v), the upper half m.
LITHE_HOST_DEVICE inline uint32_t rounding_key(int64_t block, int64_t step) {
  const auto low = static_cast<uint32_t>(block);
  const auto high = static_cast<uint32_t>(static_cast<uint64_t>(block) >> 32);
  return scramble(scramble(low ^ scramble(high)) + static_cast<uint32_t>(step) * 0x9e3779b9u);
}

// Exponent and mantissa of 1.0 are the largest code's.
inline constexpr int kRootOffset = (127 << 4) - 255;
inline constexpr int kMomentumOffset = (127 << 3) - 127;

LITHE_HOST_DEVICE inline float root_of_code(uint8_t code) {
  const float value = float_of_bits(static_cast<uint32_t>(code + kRootOffset) << 19);
  return code == 0 ? 0.0F : value;
}
LITHE_HOST_DEVICE inline float momentum_of_code(uint8_t code) {
  const auto size = static_cast<uint32_t>(code & 0x7f);
  const uint32_t sign = static_cast<uint32_t>(code >> 7) << 31;
  const uint32_t bits = (size + static_cast<uint32_t>(kMomentumOffset)) << 20;
  return float_of_bits(sign | (size == 0 ? 0u : bits));
}

// Of x in [0, 1]; NaN becomes 0.
LITHE_HOST_DEVICE inline uint8_t code_of_root(float x, uint32_t random) {
  const uint32_t bits = float_bits(x) + ((random & 0xffffu) << 3);
  const int code = static_cast<int>(bits >> 19) - kRootOffset;
  const int inside = code < 1 ? 1 : (code > 255 ? 255 : code);
  return static_cast<uint8_t>(x > 0 ? inside : 0);
}
// Of x in [-1, 1]; what is beyond becomes the largest.
LITHE_HOST_DEVICE inline uint8_t code_of_momentum(float x, uint32_t random) {
  const uint32_t all = float_bits(x);
  const uint32_t bits = (all & 0x7fffffffu) + ((random >> 16) << 4);
  const int code = static_cast<int>(bits >> 20) - kMomentumOffset;
  const int inside = code < 0 ? 0 : (code > 127 ? 127 : code);
  return static_cast<uint8_t>(static_cast<uint32_t>(inside) | ((all >> 31) << 7));
}

// A block's values times this are in [-1, 1]; 0 where there is nothing to tell apart.
LITHE_HOST_DEVICE inline float over_scale(float scale) {
  return scale > 1e-37F ? 1.0F / scale : 0.0F;
}

// The moments of one element. `g` is the gradient with its factor on.
struct Moments {
  float m, root;  // root: sqrt(v)

  LITHE_HOST_DEVICE static Moments of_codes(uint8_t m_code, uint8_t root_code, float m_scale,
                                            float root_scale) {
    return {momentum_of_code(m_code) * m_scale, root_of_code(root_code) * root_scale};
  }
  // Products meet sums in an fma only, so that no compiler has a choice.
  LITHE_HOST_DEVICE Moments updated(float g, float beta1, float beta2, float rest1,
                                    float rest2) const {
    return {std::fma(beta1, m, rest1 * g), std::sqrt(std::fma(beta2, root * root, rest2 * g * g))};
  }
};

}  // namespace lithe
