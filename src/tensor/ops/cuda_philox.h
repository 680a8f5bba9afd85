// Several Philox blocks at once on the device: the words that philox (core/philox.h) gives one
// block at a time. Device-only.
#pragma once

#include <cstdint>

#include "tensor/core/dtype.h"

namespace lithe::device {

// word[b] is block index[b] of (key, stream), of kRounds rounds. Round by round for all blocks, so
// that they overlap and share the rounds' keys.
template <int kRounds, int kBlocks>
__device__ inline void philox_blocks(uint64_t key, uint64_t stream,
                                     const uint64_t (&index)[kBlocks],
                                     uint32_t (&word)[kBlocks][4]) {
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    word[b][0] = static_cast<uint32_t>(index[b]);
    word[b][1] = static_cast<uint32_t>(index[b] >> 32);
    word[b][2] = static_cast<uint32_t>(stream);
    word[b][3] = static_cast<uint32_t>(stream >> 32);
  }
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * word[b][0];
      const uint64_t p1 = uint64_t{0xCD9E8D57u} * word[b][2];
      word[b][0] = static_cast<uint32_t>(p1 >> 32) ^ word[b][1] ^ k0;
      word[b][2] = static_cast<uint32_t>(p0 >> 32) ^ word[b][3] ^ k1;
      word[b][1] = static_cast<uint32_t>(p1);
      word[b][3] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

}  // namespace lithe::device
