// Philox4x32 (Salmon et al. 2011): random numbers as a pure function of key and counter, so that
// dropout masks, initial weights and shuffles are regenerated instead of stored.
#pragma once

#include <cstdint>

#include "tensor/core/dtype.h"

namespace lithe {

struct PhiloxBlock {
  uint32_t word[4];
};

// Four random words for the 64-bit `key` (the seed) and the 128-bit counter (stream, index). Ten
// rounds are the authors' default; seven are the fewest that pass all their tests (their table 2).
template <int kRounds = 10>
LITHE_HOST_DEVICE inline PhiloxBlock philox(uint64_t key, uint64_t stream, uint64_t index) {
  uint32_t c0 = static_cast<uint32_t>(index), c1 = static_cast<uint32_t>(index >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0;
    const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Uniform in [0, 1) with 24 bits.
LITHE_HOST_DEVICE inline float uniform01(uint32_t word) {
  return static_cast<float>(word >> 8) * (1.0f / 16777216.0f);
}

// A stream number that depends on `a` and `b` only (SplitMix64 finaliser).
LITHE_HOST_DEVICE inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t z = a + 0x9E3779B97F4A7C15ull * (b + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace lithe
