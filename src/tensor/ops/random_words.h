// Many Philox blocks at once: the words that dropout_keep (dropout.h) looks at one by one.
#pragma once

#include <cstdint>

#include "tensor/core/philox.h"

namespace lithe {

inline constexpr int64_t kWordsAtOnce = 128;

// word[4 b + w] = word w of philox(key, stream, first_block + b), for kWordsAtOnce / 4 blocks.
inline void random_words(uint64_t key, uint64_t stream, uint64_t first_block, uint32_t* word) {
#pragma omp simd
  for (int64_t b = 0; b < kWordsAtOnce / 4; ++b) {
    const uint64_t index = first_block + static_cast<uint64_t>(b);
    uint32_t c0 = static_cast<uint32_t>(index), c1 = static_cast<uint32_t>(index >> 32);
    uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0;
      const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
      c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<uint32_t>(p1);
      c3 = static_cast<uint32_t>(p0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    word[4 * b] = c0;
    word[4 * b + 1] = c1;
    word[4 * b + 2] = c2;
    word[4 * b + 3] = c3;
  }
}

}  // namespace lithe
