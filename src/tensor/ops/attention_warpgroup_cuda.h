// What the warpgroup kernels of attention share: 16-bit operands with head dims up to 64 in tiles
// of [64, 64], dropout and hidden keys. Device-only.
#pragma once

#include <type_traits>

#include "tensor/ops/attention_cuda.h"
#include "tensor/ops/cuda_warpgroup.h"

namespace lithe::attention_cuda_kernels {

// A launch has as many blocks as the device holds; each takes one task after another and copies the
// first tiles of the next while it computes the last of the present one.
inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kTileRows = 64;
inline constexpr uint32_t kTileBytes = kTileRows * device::kTileRowBytes;
inline constexpr uint32_t kPairBytes = 2 * kTileBytes;  // keys and values, or queries and dO

extern __shared__ __align__(1024) unsigned char tile_memory[];

// With dropout a tile's rows are in another order than its keys, so that the sixteen columns that a
// lane has of 64 are one block of random numbers: the key of column 8 n + 2 place + i is
// 16 place + 2 n + i.
template <bool kDrops>
__device__ constexpr int key_of_row(int row) {
  return kDrops ? (row & 1) | (row >> 3 & 7) << 1 | (row >> 1 & 3) << 4 : row;
}

// Where the first of a thread's chunks of a tile stands, in elements from the tile's first row.
template <bool kDrops>
__device__ inline int64_t own_chunk(int64_t stride) {
  const int thread = static_cast<int>(threadIdx.x);
  return key_of_row<kDrops>(thread / 8) * stride + thread % 8 * 8;
}

// 64 rows of `dim` elements, `stride` apart, as a tile; zeros behind `rows` and `dim`. own: the
// thread's first chunk, see own_chunk, which the caller keeps from tile to tile. Asynchronous.
template <bool kDrops, typename T>
__device__ inline void copy_rows(uint32_t tile, const T* own, int64_t stride, int rows, int dim) {
  constexpr int kStep = kWarpgroupThreads / 8;  // a bit of a row's number, as key_of_row needs
  const int chunk = static_cast<int>(threadIdx.x) % 8;
  const int first = static_cast<int>(threadIdx.x) / 8;
  const uint32_t to = tile + device::tile_chunk(first, chunk);
  if (rows >= kTileRows && dim == device::kTileColumns) {
#pragma unroll
    for (int r = 0; r < kTileRows; r += kStep) {
      device::copy_async(to + r * device::kTileRowBytes, own + key_of_row<kDrops>(r) * stride);
    }
    return;
  }
  const int first_key = key_of_row<kDrops>(first);
  // Chunks that are not there are not read: any address will do.
  const T* const nothing = own - own_chunk<kDrops>(stride);
#pragma unroll
  for (int r = 0; r < kTileRows; r += kStep) {
    const int key = key_of_row<kDrops>(r);
    const bool is_real = first_key + key < rows && chunk * 8 < dim;
    device::copy_async(to + r * device::kTileRowBytes, is_real ? own + key * stride : nothing,
                       is_real);
  }
}

// Asks for 64 rows, `stride` apart, of which `rows` are there, from `at` on; of `second` too.
template <typename T>
__device__ inline void prefetch_rows(const T* first, int64_t at, int64_t stride, int rows,
                                     std::type_identity_t<const T*> second) {
  const int row = static_cast<int>(threadIdx.x) % kTileRows;
  const T* const from = static_cast<int>(threadIdx.x) < kTileRows ? first : second;
  if (from != nullptr && row < rows) {
    device::prefetch(from + at + row * stride);
  }
}

// The warp's 16 rows of a tile as the left operands of four products.
__device__ inline void load_rows(uint32_t (&a)[4][4], uint32_t tile) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int row = static_cast<int>(threadIdx.x / 32) * 16 + lane % 16;
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    device::load_matrices(a[step], tile + device::tile_chunk(row, 2 * step + lane / 16));
  }
}

// Left operands from sums.
template <typename T, int kSteps>
__device__ inline void pack_rows(uint32_t (&a)[kSteps][4], const float (&c)[2 * kSteps][4]) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* pair = c[2 * step + i / 2] + i % 2 * 2;
      a[step][i] = device::pack_halves<T>(pair[0], pair[1]);
    }
  }
}

__device__ inline void clear_sums(float (&sums)[8][4]) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums[n][i] = 0;
    }
  }
}

// c = the warpgroup's 64 rows, in registers or a tile, by the transpose of 8 kEights rows of a
// tile.
template <typename T, int kEights>
__device__ inline void multiply_by_transpose(float (&c)[kEights][4], const uint32_t (&rows)[4][4],
                                             uint64_t tile) {
  device::multiply_registers<T, false, false>(c, rows[0], tile);
#pragma unroll
  for (int s = 1; s < 4; ++s) {
    device::multiply_registers<T, false, true>(c, rows[s], tile + s * device::kNextColumns);
  }
}
template <typename T, int kEights>
__device__ inline void multiply_by_transpose(float (&c)[kEights][4], uint64_t rows, uint64_t tile) {
  device::multiply_tiles<T, false, false>(c, rows, tile);
#pragma unroll
  for (int s = 1; s < 4; ++s) {
    device::multiply_tiles<T, false, true>(c, rows + s * device::kNextColumns,
                                           tile + s * device::kNextColumns);
  }
}

// Zeros as left operands, written here and not earlier, where products may still read the
// registers.
template <int kSteps>
__device__ inline void clear_rows(uint32_t (&a)[kSteps][4]) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      asm volatile("mov.b32 %0, 0;" : "=r"(a[step][i]));
    }
  }
}

// The warp's sums [16, 64] to `rows` rows from `to` on, through its rows of a tile.
template <typename T>
__device__ inline void store_rows(T* to, uint32_t tile, const float (&sums)[8][4], float upper,
                                  float lower, int64_t stride, int rows, int dim) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int first = static_cast<int>(threadIdx.x / 32) * 16;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const uint32_t at = tile + device::tile_chunk(first + lane / 4, n) + lane % 4 * 4;
    device::store_shared(at, device::pack_halves<T>(sums[n][0] * upper, sums[n][1] * upper));
    device::store_shared(at + 8 * device::kTileRowBytes,
                         device::pack_halves<T>(sums[n][2] * lower, sums[n][3] * lower));
  }
  __syncwarp();
#pragma unroll
  for (int r = 0; r < 16; r += 4) {
    const int row = r + lane / 8;
    if (row < rows && lane % 8 * 8 < dim) {
      *reinterpret_cast<uint4*>(to + row * stride + lane % 8 * 8) =
          device::load_shared(tile + device::tile_chunk(first + row, lane % 8));
    }
  }
}

// The sums over the warp's 16 rows of sums [16, 64], into the first of its rows of a tile, which
// it has no further use for,
__device__ inline void sum_rows(uint32_t tile, const float (&sums)[8][4]) {
  const auto lane = static_cast<uint32_t>(threadIdx.x % 32);
  float own[8][2];
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    own[n][0] = sums[n][0] + sums[n][2];
    own[n][1] = sums[n][1] + sums[n][3];
  }
  // Eight lanes have the same sixteen columns: in each step they pass on half of what they have
  // left, until lane l has columns 2 l and 2 l + 1.
#pragma unroll
  for (int half = 4; half > 0; half /= 2) {
    const bool is_upper = (lane & static_cast<uint32_t>(4 * half)) != 0;
#pragma unroll
    for (int n = 0; n < half; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float passed = is_upper ? own[n][i] : own[n + half][i];
        const float kept = is_upper ? own[n + half][i] : own[n][i];
        own[n][i] = kept + __shfl_xor_sync(0xffffffffu, passed, 4 * half);
      }
    }
  }
  __syncwarp();  // the rows have been read
  const uint32_t at = tile + static_cast<uint32_t>(threadIdx.x / 32 * 16 * device::kTileRowBytes);
  device::store_shared(at + lane * 8, __float_as_uint(own[0][0]));
  device::store_shared(at + lane * 8 + 4, __float_as_uint(own[0][1]));
}
// and, behind a barrier, those of all warps, times `factor`, of columns 4 chunk to 4 chunk + 3.
__device__ inline void store_row_sums(float* to, uint32_t tile, int chunk, float factor) {
  float4 total = {};
#pragma unroll
  for (int warp = 0; warp < kWarpgroupThreads / 32; ++warp) {
    const uint4 own = device::load_shared(
        tile + static_cast<uint32_t>(warp * 16 * device::kTileRowBytes + chunk * 16));
    total.x += __uint_as_float(own.x);
    total.y += __uint_as_float(own.y);
    total.z += __uint_as_float(own.z);
    total.w += __uint_as_float(own.w);
  }
  reinterpret_cast<float4*>(to)[chunk] =
      make_float4(total.x * factor, total.y * factor, total.z * factor, total.w * factor);
}

// The keys of a tile that the key mask and their number leave visible: a bit each.
struct Seen {
  uint32_t own[2] = {};
  uint32_t word[2] = {};

  // In two parts, so that the mask's bytes arrive in between.
  __device__ void load(const Geometry& geo, int64_t b, int first) {
    if (geo.key_mask != nullptr) {
      const int s = first + static_cast<int>(threadIdx.x % 32);
      own[0] = geo.sees(b, s);
      own[1] = geo.sees(b, s + 32);
    }
  }
  __device__ void share(const Geometry& geo, int first) {
    if (geo.key_mask != nullptr) {
      word[0] = __ballot_sync(0xffffffffu, own[0] != 0);
      word[1] = __ballot_sync(0xffffffffu, own[1] != 0);
    } else {
      word[0] = first_bits(geo.keys - first);
      word[1] = first_bits(geo.keys - first - 32);
    }
  }
  __device__ bool none() const { return (word[0] | word[1]) == 0; }
  __device__ bool all() const { return (word[0] & word[1]) == 0xffffffffu; }

 private:
  __device__ static uint32_t first_bits(int n) {
    return n >= 32 ? 0xffffffffu : n <= 0 ? 0u : (1u << n) - 1;
  }
};

// 64 queries of one head and the tiles of keys that they meet: at least one, perhaps of hidden
// keys. Blocks next to each other take the queries of one head, and so share its keys in the cache.
struct QueryTask {
  __device__ QueryTask(const Geometry& geo, int index) {
    const int blocks = (geo.queries + kTileRows - 1) / kTileRows;
    // With causality the last queries see most: they go first.
    first_row = (blocks - 1 - index % blocks) * kTileRows;
    head = index / blocks % geo.heads;
    b = index / blocks / geo.heads;
    const int last_row = min(first_row + kTileRows, geo.queries) - 1;
    key_tiles = max((geo.visible(last_row) + kTileRows - 1) / kTileRows, 1);
  }
  int b;
  int head;
  int first_row;
  int key_tiles;
};

// The thread's place in a task's first tiles of keys and values.
template <bool kDrops>
__device__ inline int64_t first_keys(const Geometry& geo, const QueryTask& task) {
  return geo.key_at(task.b, 0, task.head / geo.group()) +
         own_chunk<kDrops>(int64_t{geo.kv_heads} * geo.dim);
}
// A task's `tile`th tile of keys and one of values behind it, of which the thread's place is `at`;
// moves that to the next one.
template <bool kDrops, typename T>
__device__ inline void copy_keys(uint32_t to, const Geometry& geo, const T* k, const T* v,
                                 int64_t& at, int tile) {
  const int64_t stride = int64_t{geo.kv_heads} * geo.dim;
  const int rows = geo.keys - tile * kTileRows;
  copy_rows<kDrops>(to, k + at, stride, rows, geo.dim);
  copy_rows<kDrops>(to + kTileBytes, v + at, stride, rows, geo.dim);
  at += kTileRows * stride;
}

// Calls step.operator()<kWidth, kMasked>() for a tile of keys, unless all are hidden: with its
// first kWidth keys where the others are not there, kMasked where some may be hidden from some of
// the task's queries.
template <bool kDrops, typename F>
__device__ inline void take_tile(const Geometry& geo, const QueryTask& task, int tile,
                                 const Seen& seen, const F& step) {
  if (seen.none()) {
    return;
  }
  if (seen.all() && geo.visible(task.first_row) >= (tile + 1) * kTileRows) {
    step.template operator()<kTileRows, false>();
    return;
  }
  if constexpr (!kDrops) {  // whose order of keys spreads the first sixteen
    if (geo.keys - tile * kTileRows <= 16) {
      step.template operator()<16, true>();
      return;
    }
  }
  step.template operator()<kTileRows, true>();
}

// Scores of rows of queries by the keys from first_key on, hidden ones set to -infinity.
template <bool kDrops, int kEights>
__device__ inline void hide_keys(float (&scores)[kEights][4], const Seen& seen, const Geometry& geo,
                                 int query, int first_key) {
  const int place = static_cast<int>(threadIdx.x % 4);
  const int step = kDrops ? 16 * place : 2 * place;  // the lane's first key
  const int limit[2] = {geo.visible(query) - first_key - step,
                        geo.visible(query + 8) - first_key - step};
  const uint32_t own[2] = {(kDrops && place >= 2 ? seen.word[1] : seen.word[0]) >> (step % 32),
                           seen.word[1] >> (step % 32)};
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int bit = n * (kDrops ? 2 : 8) + i % 2;
      if ((own[bit / 32] >> (bit % 32) & 1u) == 0 || bit >= limit[i / 2]) {
        scores[n][i] = -INFINITY;
      }
    }
  }
}

// Which probabilities of the `tile`th tile of keys are kept, see Draw::keeps_blocks; first_block is
// the upper query's of the lane's first sixteen keys. Where products are under way, the compiler
// shall not draw before it starts them, or after it waits for them.
__device__ inline uint32_t draw_tile(const Draw& draw, const Geometry& geo, uint64_t first_block,
                                     int tile) {
  asm volatile("" : "+r"(tile));
  const uint64_t block = first_block + static_cast<uint64_t>(tile * 4);
  uint32_t bits =
      draw.keeps_blocks(block, block + 8 * static_cast<uint64_t>(probability_blocks(geo.keys)));
  asm volatile("" : "+r"(bits));
  return bits;
}

// Two 16-bit elements of a word, of which the upper bits of bytes 2 kPair and 2 kPair + 1 of `kept`
// say whether they stay; else they become 0.
template <int kPair>
__device__ inline uint32_t keep_pair(uint32_t pair, uint32_t kept) {
  uint32_t mask;  // the upper bit of one byte all over two, and that of the next
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(mask) : "r"(kept), "n"(kPair == 0 ? 0x9988 : 0xbbaa));
  return pair & mask;
}

// Tasks of 64 queries.
inline int query_tasks(const KernelArgs& args, const Geometry& geometry) {
  const int64_t heads = args.in[0].shape[0] * geometry.heads;
  return static_cast<int>(
      device::blocks_for(heads * ((geometry.queries + kTileRows - 1) / kTileRows), 1));
}
template <typename Kernel>
unsigned running_blocks(int tasks) {
  constexpr int64_t kBlocks = kProcessors * Kernel::kResident;
  return static_cast<unsigned>(std::min<int64_t>(tasks, kBlocks));
}

}  // namespace lithe::attention_cuda_kernels
