// Many of dropout's Philox blocks at once: the lanes that dropout_keep (dropout.h) looks at one by
// one.
#pragma once

#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

#include "tensor/ops/dropout.h"

namespace lithe {

// random_lanes(seed, stream, first_block, lane): lane[n b + i] = lane i of dropout_block(seed,
// stream, first_block + b), for kBlocksAtOnce blocks of n lanes: eight uint16_t or sixteen uint8_t.
inline constexpr int64_t kBlocksAtOnce = 16;
inline constexpr int64_t kLanesAtOnce = kBlocksAtOnce * kDropoutLanes;
inline constexpr int64_t kByteLanesAtOnce = kBlocksAtOnce * kLanesOfBlock<8>;

#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)

// Eight blocks in the 64-bit lanes, where the products' halves need no shuffles; only the low
// halves of c0..c3 are valid. The multiplication is named because compilers take the slow 64-bit
// one.
using Lanes = uint64_t __attribute__((vector_size(64)));

inline Lanes multiply_low_halves(Lanes a, Lanes b) {
  return reinterpret_cast<Lanes>(
      _mm512_maskz_mul_epu32(0xff, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

template <typename Lane>
void random_lanes(uint64_t seed, uint64_t stream, uint64_t first_block, Lane* lane) {
  constexpr uint64_t kOfBlock = 16 / sizeof(Lane);
  constexpr Lanes kZero{};
  for (uint64_t b = 0; b < kBlocksAtOnce; b += 8) {
    Lanes c0 = Lanes{0, 1, 2, 3, 4, 5, 6, 7} + (first_block + b);
    Lanes c1 = c0 >> 32;
    Lanes c2 = kZero + stream;
    Lanes c3 = c2 >> 32;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < kDropoutRounds; ++round) {
      const Lanes p0 = multiply_low_halves(c0, kZero + uint64_t{0xD2511F53});
      const Lanes p1 = multiply_low_halves(c2, kZero + uint64_t{0xCD9E8D57});
      c0 = (p1 >> 32) ^ c1 ^ uint64_t { k0 };
      c2 = (p0 >> 32) ^ c3 ^ uint64_t { k1 };
      c1 = p1;
      c3 = p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    // Words 0 and 1, and 2 and 3, of each block side by side; then block after block. A word's
    // lowest bits, its first lane, are first in memory too: x86 stores them so.
    const Lanes front = (c0 & uint64_t{0xffffffff}) | (c1 << 32);
    const Lanes back = (c2 & uint64_t{0xffffffff}) | (c3 << 32);
    const Lanes first = __builtin_shuffle(front, back, Lanes{0, 8, 1, 9, 2, 10, 3, 11});
    const Lanes second = __builtin_shuffle(front, back, Lanes{4, 12, 5, 13, 6, 14, 7, 15});
    std::memcpy(lane + kOfBlock * b, &first, sizeof(first));
    std::memcpy(lane + kOfBlock * (b + 4), &second, sizeof(second));
  }
}

#else

template <typename Lane>
void random_lanes(uint64_t seed, uint64_t stream, uint64_t first_block, Lane* lane) {
  constexpr int kBits = 8 * static_cast<int>(sizeof(Lane));
#pragma omp simd
  for (int64_t b = 0; b < kBlocksAtOnce; ++b) {
    const PhiloxBlock block = dropout_block(seed, stream, first_block + static_cast<uint64_t>(b));
    for (int i = 0; i < kLanesOfBlock<kBits>; ++i) {
      lane[kLanesOfBlock<kBits> * b + i] = static_cast<Lane>(dropout_lane<kBits>(block, i));
    }
  }
}

#endif

}  // namespace lithe
