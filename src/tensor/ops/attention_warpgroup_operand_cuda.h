// q, k or v as int8 codes with a scale of its own type a group, for the warpgroup kernels of
// attention's backward pass: decoded in the tile that they are copied to. Device-only.
#pragma once

#include <type_traits>

#include "tensor/ops/attention_warpgroup_cuda.h"
#include "tensor/ops/saved_code_cuda.h"

namespace lithe::attention_cuda_kernels {

// Two neighbours of four codes, by a pair of equal scales in the same type: exact but for the one
// rounding of the product, and so what decoding in fp32 gives.
template <typename T>
__device__ inline uint32_t decode_pair(uint32_t codes, int pair, uint32_t scales) {
  const uint32_t place = pair == 0 ? 0x4140u : 0x4342u;
  uint32_t out;
  if constexpr (std::is_same_v<T, bf16>) {
    // Its mantissa has no room for eight bits: 128 + the lower seven, less 128 or 256 by the sign.
    const uint32_t spread = __byte_perm(codes, 0x43u, place);
    asm("sub.rn.bf16x2 %0, %1, %2;"
        : "=r"(out)
        : "r"(spread & 0xff7fff7fu), "r"(spread & 0xff80ff80u));
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(out), "r"(scales));
  } else {
    const uint32_t shifted = __byte_perm(codes ^ device::kSignBits8, 0x64u, place);
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(shifted), "r"(0x64806480u));  // 1024 + 128
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(out), "r"(scales));
  }
  return out;
}

// copy() and decode() of a tile belong together, a wait for the copies between them: what a thread
// copies it decodes itself.
template <typename T_>
struct CodedOperand {
  using T = T_;
  static constexpr bool kDecodes = true;
  static constexpr int kStep = kWarpgroupThreads / 8;
  const uint8_t* data = nullptr;
  const T* scales = nullptr;
  int group_bits = 0;

  // A chunk's place takes its eight codes, and behind them the word that their scale lies in.
  template <bool kDrops>
  __device__ void copy(uint32_t tile, int64_t at, int64_t stride, int rows, int dim) const {
    const int first_key = key_of_row<kDrops>(static_cast<int>(threadIdx.x) / 8);
    const bool is_in_row = static_cast<int>(threadIdx.x) % 8 * 8 < dim;
    const uint32_t to = own_place(tile);
    const T* const own_scales = scales + (at >> group_bits & ~int64_t{1});
    // Rows are whole groups, and those of a thread an even number of rows apart.
    const int64_t scale_stride = stride >> group_bits;
#pragma unroll
    for (int r = 0; r < kTileRows; r += kStep) {
      const int key = key_of_row<kDrops>(r);
      const bool is_real = is_in_row && first_key + key < rows;
      const uint32_t place = to + r * device::kTileRowBytes;
      // What is not there is not read: any address will do.
      device::copy_few_async<8>(place, is_real ? data + at + key * stride : data, is_real);
      device::copy_few_async<4>(place + 8, is_real ? own_scales + key * scale_stride : scales,
                                is_real);
    }
  }

  // `at` as it was copied from, or any even number of rows further.
  __device__ void decode(uint32_t tile, int64_t at) const {
    // So all scales of the thread are in the same half of their words.
    const uint32_t half = (at >> group_bits & 1) != 0 ? 0x3232u : 0x1010u;
    const uint32_t to = own_place(tile);
    uint4 words[kTileRows / kStep];  // all on their way before the first is needed
#pragma unroll
    for (int i = 0; i < kTileRows / kStep; ++i) {
      words[i] = device::load_shared(to + i * kStep * device::kTileRowBytes);
    }
#pragma unroll
    for (int i = 0; i < kTileRows / kStep; ++i) {
      const uint4& w = words[i];
      const uint32_t factors = __byte_perm(w.z, 0, half);
      device::store_shared(
          to + i * kStep * device::kTileRowBytes,
          make_uint4(decode_pair<T>(w.x, 0, factors), decode_pair<T>(w.x, 1, factors),
                     decode_pair<T>(w.y, 0, factors), decode_pair<T>(w.y, 1, factors)));
    }
  }

 private:
  __device__ static uint32_t own_place(uint32_t tile) {
    const int thread = static_cast<int>(threadIdx.x);
    return tile + device::tile_chunk(thread / 8, thread % 8);
  }
};

}  // namespace lithe::attention_cuda_kernels
