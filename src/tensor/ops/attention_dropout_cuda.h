// Dropout of attention's probabilities on the device: which elements of a warp's fragments are
// kept, as dropout_keep_in_row (dropout.h) says. Device-only.
#pragma once

#include "tensor/ops/cuda_philox.h"
#include "tensor/ops/dropout.h"

namespace lithe::attention_cuda_kernels {

struct Dropout {
  const int64_t* rng = nullptr;  // (seed, step); null: nothing is dropped
  uint64_t key = 0;
  uint32_t threshold = 0;
  double kept_scale = 1;
};

// The draw of one launch, in registers.
struct Draw {
  __device__ explicit Draw(const Dropout& d) {
    if (d.rng != nullptr) {
      seed = static_cast<uint64_t>(d.rng[0]);
      stream = mix(d.key, static_cast<uint64_t>(d.rng[1]));
      threshold = d.threshold;
      add = (0x80u - (threshold & 0x7fu)) * 0x01010101u;
      is_low = threshold < 0x80u ? ~0u : 0u;
    }
  }
  // Lane `lane` of a block.
  __device__ bool keeps(uint64_t block, int lane) const {
    return dropout_lane<kAttentionDropoutBits>(dropout_block(seed, stream, block), lane) >=
           threshold;
  }
  // Of four lanes at once the upper bit, which says whether a lane is not below the threshold: from
  // the comparison of the lower seven bits and both upper bits. The other bits are anything.
  __device__ uint32_t compare(uint32_t lanes) const {
    const uint32_t sum = (lanes & 0x7f7f7f7fu) + add;
    return (lanes & sum) | (is_low & (lanes | sum));
  }
  // The sixteen lanes each of two blocks, a bit each: bit 8 (k % 4) + 4 row + k / 4 for lane k.
  __device__ uint32_t keeps_blocks(uint64_t upper, uint64_t lower) const {
    const uint64_t blocks[2] = {upper, lower};
    uint32_t word[2][4];
    device::philox_blocks<kDropoutRounds>(seed, stream, blocks, word);
    uint32_t bits = 0;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        bits = (bits >> 1) | (compare(word[row][w]) & 0x80808080u);
      }
    }
    return bits;
  }

  uint64_t seed = 0;
  uint64_t stream = 0;
  uint32_t threshold = 0;
  uint32_t add = 0;
  uint32_t is_low = 0;
};

// Swaps, between lanes that differ in bit `of_lane`, the bits that differ in place by `shift`, of
// which `upper` are the upper ones.
__device__ inline uint32_t exchange(uint32_t bits, int of_lane, int shift, uint32_t upper) {
  const uint32_t other = __shfl_xor_sync(0xffffffffu, bits, of_lane);
  const bool is_upper = (static_cast<int>(threadIdx.x) & of_lane) != 0;
  const uint32_t mine = is_upper ? upper : ~upper;
  const uint32_t moved = __funnelshift_l(other, other, is_upper ? 32 - shift : shift);
  return (bits & mine) | (moved & ~mine);
}

// Fragments of 16 queries by 64 keys, of which a lane has the elements (query lane / 4 + 8 row,
// key 8 n + 2 (lane % 4) + i). A lane draws keeps_blocks for its two queries and the sixteen keys
// from 16 (lane % 4) on, and then the lanes of those queries swap.
__device__ inline uint32_t swap_for_queries(uint32_t drawn) {
  return exchange(exchange(drawn, 2, 1, 0xaaaaaaaau), 1, 16, 0xffff0000u);
}
__device__ constexpr int bit_for_queries(int n, int row, int i) {
  return 16 * (n / 2 % 2) + 8 * i + 4 * row + 2 * (n % 2) + n / 4;
}

// Fragments of 16 keys by 64 queries, of which a lane has the elements (key lane / 4 + 8 row, query
// 8 n + 2 (lane % 4) + i). A block of random numbers is that of one query and the keys of eight
// lanes, so each lane draws keeps_blocks for two queries, drawn_query and eight further, and then
// they swap: bit 4 n + 2 row + i.
__device__ inline int drawn_query() {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return 16 * (lane / 4 % 4) + 2 * (lane % 4) + lane / 16;
}
__device__ inline uint32_t swap_for_keys(uint32_t drawn) {
  drawn = exchange(drawn, 16, 1, 0xaaaaaaaau);
  drawn = exchange(drawn, 8, 16, 0xffff0000u);
  return exchange(drawn, 4, 8, 0xff00ff00u);
}

}  // namespace lithe::attention_cuda_kernels
