// Attention's backward pass on warpgroups: the kernel that holds keys. Device-only.
#pragma once

#include "tensor/ops/attention_warpgroup_query_gradient_cuda.h"

namespace lithe::attention_cuda_kernels {

// dk and dv of 64 keys. A lane has two keys, `lane / 4` and 8 further of its warp's, and
// of a tile of queries the columns 8 n + 2 place + i.
template <typename T_, bool kDrops_>
struct WarpgroupKeyGradient {
  using T = T_;
  static constexpr bool kDrops = kDrops_;
  static constexpr int kResident = 3;
  static constexpr int kWidth = 32;  // queries whose scores there are at a time
  static constexpr uint32_t kStatisticsBytes = kTileRows * sizeof(float2);
  // Two stages of queries and output gradients, the keys and values of two tasks, two stages of
  // statistics.
  static constexpr size_t kSharedBytes = 4 * kPairBytes + 2 * kStatisticsBytes;

  struct Task {
    __device__ Task(const Geometry& geo, int index) {
      const int blocks = (geo.keys + kTileRows - 1) / kTileRows;
      first_key = index % blocks * kTileRows;
      kv_head = index / blocks % geo.kv_heads;
      b = index / blocks / geo.kv_heads;
      const int unseen = geo.causal ? first_key - (geo.keys - geo.queries) : 0;
      first_query = unseen > 0 ? unseen / kTileRows * kTileRows : 0;
    }
    int b;
    int kv_head;
    int first_key;
    int first_query;  // of the first tile of queries that sees some of the keys
  };

  const WarpgroupBackwardParams<T>& p;
  const Geometry& geo = p.geometry;
  int first_key = 0;       // of the warp
  bool is_active = false;  // some key of the warp is visible as far as the key mask goes
  bool own_sees[2] = {};
  bool hides = false;       // some key of the warp is not
  uint32_t stage = 0;       // shared address of the present tile
  uint32_t statistics = 0;  // and of its queries' statistics
  uint32_t own_tile = 0;    // of the warpgroup's keys, then values
  uint32_t bits = 0;        // which probabilities are kept, see draw_mask and swap_for_keys
  float dk[8][4];
  float dv[8][4];

  __device__ void copy_pair(const Task& task, uint32_t to) const {
    const int64_t stride = int64_t{geo.kv_heads} * geo.dim;
    const int64_t at = geo.key_at(task.b, task.first_key, task.kv_head) + own_chunk<false>(stride);
    const int rows = geo.keys - task.first_key;
    copy_rows<false>(to, p.k + at, stride, rows, geo.dim);
    copy_rows<false>(to + kTileBytes, p.v + at, stride, rows, geo.dim);
  }
  __device__ void copy_queries(int b, int head, int first, uint32_t to,
                               uint32_t statistics_to) const {
    const int64_t stride = int64_t{geo.heads} * geo.dim;
    const int64_t at = geo.query_at(b, first, head) + own_chunk<false>(stride);
    const int rows = geo.queries - first;
    copy_rows<false>(to, p.q + at, stride, rows, geo.dim);
    copy_rows<false>(to + kTileBytes, p.dout + at, stride, rows, geo.dim);
    if (threadIdx.x < kStatisticsBytes / 16) {
      const float2* const from =
          p.statistics + (int64_t{b} * geo.heads + head) * p.padded_queries + first;
      device::copy_async(statistics_to + threadIdx.x * 16, from + threadIdx.x * 2);
    }
  }

  __device__ static int lane() { return static_cast<int>(threadIdx.x % 32); }

  // keeps_blocks of drawn_query and the warp's keys: of the other kernel,
  __device__ uint32_t load_mask(const Task& task, int query_head, int first_query) const {
    const int word = drawn_query() / 16 * 8 + drawn_query() % 16;
    const int64_t tile =
        p.mask_tile(task.b, query_head, first_query / kTileRows, task.first_key / kTileRows);
    return __ldg(p.masks + tile + threadIdx.x / 32 * 32 + word);
  }
  // and drawn.
  __device__ uint32_t draw_mask(const Draw& draw, int b, int query_head, int first_query) const {
    const uint64_t block = geo.block_at(b, query_head, first_query + drawn_query(), first_key);
    return draw.keeps_blocks(block,
                             block + 8 * static_cast<uint64_t>(probability_blocks(geo.keys)));
  }

  // Hidden keys get scores of -infinity.
  template <int kEights>
  __device__ void hide(float (&scores)[kEights][4], int first_query) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Queries from here on see the key.
      const int key = first_key + lane() / 4 + 8 * half;
      const int from =
          geo.causal ? key - (geo.keys - geo.queries) - first_query - 2 * (lane() % 4) : -kTileRows;
#pragma unroll
      for (int n = 0; n < kEights; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (!own_sees[half] || n * 8 + i < from) {
            scores[n][2 * half + i] = -INFINITY;
          }
        }
      }
    }
  }

  // kCount queries of the present tile from `first` on, of which first_query is the first; bit
  // 4 n + i: element i of column n is kept. The sums are complete after the next wait.
  template <int kCount>
  __device__ void step(int first, int first_query) {
    constexpr int kEights = kCount / 8;
    const uint32_t queries = stage + static_cast<uint32_t>(first * device::kTileRowBytes);
    const uint64_t query_tile = device::describe_tile(queries);
    const uint64_t dout_tile = device::describe_tile(queries + kTileBytes);
    const uint64_t key_tile = device::describe_tile(own_tile);
    const uint64_t value_tile = device::describe_tile(own_tile + kTileBytes);
    float scores[kEights][4];
    float ds[kEights][4];
    device::warpgroup_begin();
    multiply_by_transpose<T>(scores, key_tile, query_tile);
    device::warpgroup_commit();
    multiply_by_transpose<T>(ds, value_tile, dout_tile);
    device::warpgroup_commit();
    if constexpr (kDrops) {
      if (first == 0) {
        bits = swap_for_keys(bits);  // under the products
      }
    }
    device::warpgroup_wait<1>();
    device::settle(scores);
    // (log-sum-exp, delta) of two neighbouring queries of the lane.
    const uint32_t own_statistics = statistics + static_cast<uint32_t>(first * 8 + lane() % 4 * 16);
    if (is_active) {
      if (hides || (geo.causal && geo.visible(first_query) < first_key + 16)) {
        hide(scores, first_query);
      }
#pragma unroll
      for (int n = 0; n < kEights; ++n) {
        const uint4 both = device::load_shared(own_statistics + n * 64);
        const float lse[2] = {__uint_as_float(both.x), __uint_as_float(both.z)};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          scores[n][i] = device::exp2_fast(scores[n][i] * p.scale - lse[i % 2]);
        }
      }
    }
    device::warpgroup_wait<0>();
    device::settle(ds);
    uint32_t weights[kCount / 16][4];
    uint32_t gradients[kCount / 16][4];
    if (is_active) {
#pragma unroll
      for (int n = 0; n < kEights; ++n) {
        const uint4 both = device::load_shared(own_statistics + n * 64);
        const float delta[2] = {__uint_as_float(both.y), __uint_as_float(both.w)};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float probability = scores[n][i];
          float kept = probability;
          float dp = ds[n][i];
          if constexpr (kDrops) {
            const float factor = (bits >> (4 * n + i) & 1u) != 0 ? p.kept_scale : 0.0f;
            kept *= factor;
            dp *= factor;
          }
          scores[n][i] = kept;
          ds[n][i] = probability * (dp - delta[i % 2]);
        }
      }
      pack_rows<T>(weights, scores);
      pack_rows<T>(gradients, ds);
    } else {
      clear_rows(weights);
      clear_rows(gradients);
    }
    device::warpgroup_begin();
#pragma unroll
    for (int s = 0; s < kCount / 16; ++s) {
      device::multiply_registers<T, true, true>(dv, weights[s], dout_tile + s * device::kNextRows);
    }
#pragma unroll
    for (int s = 0; s < kCount / 16; ++s) {
      device::multiply_registers<T, true, true>(dk, gradients[s],
                                                query_tile + s * device::kNextRows);
    }
    device::warpgroup_commit();
  }

  __device__ void begin(const Task& task, Seen& seen) {
    const int warp = static_cast<int>(threadIdx.x / 32);
    first_key = task.first_key + warp * 16;
    seen.share(geo, task.first_key);
    const uint32_t own = (warp < 2 ? seen.word[0] : seen.word[1]) >> (warp % 2 * 16);
    is_active = (own & 0xffffu) != 0;
    hides = (own & 0xffffu) != 0xffffu;
    own_sees[0] = (own >> (lane() / 4) & 1u) != 0;
    own_sees[1] = (own >> (lane() / 4 + 8) & 1u) != 0;
    clear_sums(dk);
    clear_sums(dv);
  }
  __device__ void prefetch_task(const Task& task) const {
    const int64_t at = geo.key_at(task.b, task.first_key, task.kv_head);
    prefetch_rows(p.k, at, geo.kv_heads * geo.dim, geo.keys - task.first_key, p.v);
    const int64_t query_at = geo.query_at(task.b, task.first_key, task.kv_head * geo.group());
    prefetch_rows(p.q, query_at, geo.heads * geo.dim, geo.queries - task.first_key, p.dout);
  }
  __device__ void finish(const Task& task) {
    const int rows = geo.keys - first_key;
    const int64_t at = geo.key_at(task.b, first_key, task.kv_head, p.to.key_row);
    if (p.to.dk != nullptr) {
      const auto scale = static_cast<float>(geo.scale);
      store_rows(p.to.dk + at, own_tile, dk, scale, scale, p.to.key_row, rows, geo.dim);
    }
    if (p.to.dv != nullptr) {
      store_rows(p.to.dv + at, own_tile + kTileBytes, dv, 1.0f, 1.0f, p.to.key_row, rows, geo.dim);
    }
    if (p.bias_sums != nullptr) {
      sum_biases(task);
    }
  }
  __device__ void sum_biases(const Task& task) const {
    sum_rows(own_tile, dk);
    sum_rows(own_tile + kTileBytes, dv);
    __syncthreads();
    const int gradient = static_cast<int>(threadIdx.x) / 16;  // of dk and dv
    const int chunk = static_cast<int>(threadIdx.x) % 16;
    if (gradient < 2 && chunk < geo.dim / 4) {
      store_row_sums(p.bias_sums_of(task.b, first_key / kTileRows, 1 + gradient, task.kv_head),
                     own_tile + gradient * kTileBytes, chunk,
                     gradient == 0 ? static_cast<float>(geo.scale) : 1.0f);
    }
  }

  __device__ void run() {
    const uint32_t stages = device::shared_address(tile_memory);
    const uint32_t key_tiles = stages + 2 * kPairBytes;
    const uint32_t all_statistics = key_tiles + 2 * kPairBytes;
    const int blocks = static_cast<int>(gridDim.x);
    int index = static_cast<int>(blockIdx.x);
    Task task(geo, index);
    own_tile = key_tiles;
    stage = stages;
    statistics = all_statistics;
    Seen seen;
    uint32_t mask = 0;
    const bool reads_masks = kDrops && p.masks != nullptr;
    copy_pair(task, own_tile);
    copy_queries(task.b, task.kv_head * geo.group(), task.first_query, stage, statistics);
    seen.load(geo, task.b, task.first_key);
    if (reads_masks) {
      mask = load_mask(task, task.kv_head * geo.group(), task.first_query);
    }
    const Draw draw(geo.dropout);
    device::copy_async_wait_all();
    device::publish_tiles();
    __syncthreads();
    while (index < p.tasks) {
      begin(task, seen);
      const bool sees_none = seen.none();
      const bool has_next = index + blocks < p.tasks;
      const Task next(geo, has_next ? index + blocks : index);
      const uint32_t next_tile = 2 * key_tiles + kPairBytes - own_tile;
      if (has_next) {
        prefetch_task(next);
      }
      const int end_head = (task.kv_head + 1) * geo.group();
      int head = end_head - geo.group();
      int query = task.first_query;
      for (bool is_last = false; !is_last;) {
        const uint32_t other_stage = 2 * stages + kPairBytes - stage;
        const uint32_t other_statistics = 2 * all_statistics + kStatisticsBytes - statistics;
        int next_head = head;
        int next_query = query + kTileRows;
        if (next_query >= geo.queries) {
          next_query = task.first_query;
          ++next_head;
        }
        is_last = next_head == end_head;
        bits = mask;
        if (!is_last) {
          copy_queries(task.b, next_head, next_query, other_stage, other_statistics);
          if (reads_masks) {
            mask = load_mask(task, next_head, next_query);
          }
        } else if (has_next) {
          copy_pair(next, next_tile);
          copy_queries(next.b, next.kv_head * geo.group(), next.first_query, other_stage,
                       other_statistics);
          seen.load(geo, next.b, next.first_key);
          if (reads_masks) {
            mask = load_mask(next, next.kv_head * geo.group(), next.first_query);
          }
        }
        if (!sees_none) {
          tile_of_queries(task.b, head, query, draw);
        }
        device::copy_async_wait_all();
        device::publish_tiles();
        device::warpgroup_wait<0>();
        device::settle(dv);
        device::settle(dk);
        __syncthreads();
        stage = other_stage;
        statistics = other_statistics;
        head = next_head;
        query = next_query;
      }
      finish(task);
      __syncthreads();  // the tiles of keys are free
      index += blocks;
      task = next;
      own_tile = next_tile;
    }
  }

  __device__ void tile_of_queries(int b, int head, int query, const Draw& draw) {
    if constexpr (!kDrops) {
      if (geo.queries - query <= 16) {
        step<16>(0, query);
        return;
      }
    } else if (p.masks == nullptr) {
      bits = draw_mask(draw, b, head, query);
    }
#pragma unroll 1
    for (int first = 0; first < kTileRows; first += kWidth) {
      step<kWidth>(first, query + first);
      bits >>= 16;  // the other half of the queries
    }
  }
};

}  // namespace lithe::attention_cuda_kernels
