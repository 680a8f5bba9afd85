// Attention's backward pass on warpgroups: the kernel that holds queries. Device-only.
#pragma once

#include "tensor/ops/attention_warpgroup_cuda.h"

namespace lithe::attention_cuda_kernels {

template <typename T>
struct WarpgroupBackwardParams {
  Geometry geometry;
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  const T* out = nullptr;  // null: delta is derived
  const float* lse = nullptr;
  const T* dout = nullptr;
  AttentionGradients<T> to{};
  // In fp32, because the kernels would convert them in every step.
  float scale = 1;               // of scores, in units of log 2
  float kept_scale = 1;          // dropout's
  float2* statistics = nullptr;  // [B, N, padded_queries], see statistics_kernel
  // Which probabilities are kept, from this kernel to the other: a tile of 64 queries and 64 keys
  // [B, N, tiles of queries, tiles of keys] is four times sixteen keys by the words of the lanes
  // that drew them (16 queries a warp, `lane / 4`), see Draw::keeps_blocks. Null: not passed on.
  uint32_t* masks = nullptr;
  // The sums of packed dq, dk and dv over the rows of each tile [B, tiles of queries, 3, N, D].
  // Null: not wanted.
  float* bias_sums = nullptr;
  int key_tiles = 0;
  int padded_queries = 0;  // a multiple of 64
  int tasks = 0;

  __device__ int64_t mask_tile(int64_t b, int64_t head, int query_tile, int key_tile) const {
    const int64_t row = (b * geometry.heads + head) * (padded_queries / kTileRows) + query_tile;
    return (row * key_tiles + key_tile) * attention_blocks::kMaskTileWords;
  }
  // Those of dq, dk or dv, the `gradient`th of these, in one head.
  __device__ float* bias_sums_of(int64_t b, int tile, int gradient, int head) const {
    const int64_t row = (b * (padded_queries / kTileRows) + tile) * 3 + gradient;
    return bias_sums + (row * geometry.heads + head) * geometry.dim;
  }
};

// What a lane sums to derive delta = rowsum(P ∘ dP) / rowsum(P) on the way. dq = Σ P (dP - delta) K
// is then Σ P (dP - shift) K - (delta - shift) Σ P K; a shift near delta, that of the first tile
// alone, keeps the difference from losing what 16 bits of P (dP - shift) hold.
template <bool kDerives>
struct DerivedDelta {};
template <>
struct DerivedDelta<true> {
  float keys[8][4];   // Σ P K
  float total[2];     // the lane's share of Σ P,
  float weighted[2];  // of Σ P (dP - shift)
  float shift[2];
  bool is_first = true;  // no tile has been seen

  __device__ void clear() {
    clear_sums(keys);
    total[0] = total[1] = weighted[0] = weighted[1] = shift[0] = shift[1] = 0;
    is_first = true;
  }
  // From probabilities and their gradients, the first that there are.
  template <int kEights>
  __device__ void choose_shift(const float (&probabilities)[kEights][4],
                               const float (&dp)[kEights][4]) {
    is_first = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float all = 0;
      float of_gradients = 0;
#pragma unroll
      for (int n = 0; n < kEights; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          all += probabilities[n][i];
          of_gradients += probabilities[n][i] * dp[n][i];
        }
      }
      all = quad_sum(all);
      of_gradients = quad_sum(of_gradients);
      shift[half] = all > 0 ? of_gradients / all : 0.0f;
    }
  }
  // delta - shift of a half, in all lanes of the row.
  __device__ float beyond_shift(int half) const {
    const float all = quad_sum(total[half]);
    const float of_gradients = quad_sum(weighted[half]);
    return all > 0 ? of_gradients / all : 0.0f;
  }
};

// dq of 64 queries, and the queries' statistics for the other kernel. kDerives: without an output.
template <typename T_, bool kDrops_, bool kDerives>
struct WarpgroupQueryGradient {
  using T = T_;
  static constexpr bool kDrops = kDrops_;
  static constexpr int kResident = kDerives ? 2 : 3;  // there is a second tile of sums
  // Two stages of keys and values, the queries and output gradients of two tasks.
  static constexpr size_t kSharedBytes = 4 * kPairBytes;

  const WarpgroupBackwardParams<T>& p;
  const Geometry& geo = p.geometry;
  int row = 0;                // the lane's first query; the second is 8 further
  bool is_active = true;      // the warp has queries
  uint32_t own_tile = 0;      // shared address of the task's queries, then output gradients
  uint32_t stage = 0;         // and of the present keys and values
  uint64_t draw_block = 0;    // dropout's, of the upper row and the lane's first keys
  uint32_t* masks = nullptr;  // where the lane's bits of the task's first tile go
  float lse[2];
  float delta[2];
  float sums[8][4];
  DerivedDelta<kDerives> derived;

  __device__ void copy_queries(const QueryTask& task, uint32_t to) const {
    const int64_t stride = int64_t{geo.heads} * geo.dim;
    const int64_t at = geo.query_at(task.b, task.first_row, task.head) + own_chunk<false>(stride);
    const int rows = geo.queries - task.first_row;
    copy_rows<false>(to, p.q + at, stride, rows, geo.dim);
    copy_rows<false>(to + kTileBytes, p.dout + at, stride, rows, geo.dim);
  }

  // The log-sum-exp alone.
  __device__ void look_at_sums(const QueryTask& task) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = row + 8 * half;
      lse[half] = INFINITY;
      if (t < geo.queries) {
        const int64_t of_head = int64_t{task.b} * geo.heads + task.head;
        const float natural = p.lse[of_head * geo.queries + t];
        lse[half] = natural == -INFINITY ? INFINITY : natural * static_cast<float>(kLog2E);
      }
    }
  }
  // dO · O and the log-sum-exp, two lanes a query.
  __device__ void look_at_rows(const QueryTask& task) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int row_of_tile = static_cast<int>(threadIdx.x) / 2;
    const int t = task.first_row + row_of_tile;
    const int64_t of_head = int64_t{task.b} * geo.heads + task.head;
    float dot = 0;
    float log_sum = INFINITY;
    if (t < geo.queries) {
      const int64_t at = geo.query_at(task.b, t, task.head);
      const float natural = p.lse[of_head * geo.queries + t];
      device::Pack<T, 8> out[4];  // all on their way before the first is needed
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int chunk = lane % 2 + i * 2;
        if (chunk * 8 < geo.dim) {
          out[i] = device::load<8>(p.out + at + chunk * 8);
        }
      }
      log_sum = natural == -INFINITY ? INFINITY : natural * static_cast<float>(kLog2E);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int chunk = lane % 2 + i * 2;
        if (chunk * 8 < geo.dim) {
          const uint4 words =
              device::load_shared(own_tile + kTileBytes + device::tile_chunk(row_of_tile, chunk));
          device::Pack<T, 8> x;
          memcpy(&x, &words, sizeof(x));
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            dot += device::widen<float>(x.at[j]) * device::widen<float>(out[i].at[j]);
          }
        }
      }
    }
    dot += __shfl_xor_sync(0xffffffffu, dot, 1);
    if (lane % 2 == 0) {
      p.statistics[of_head * p.padded_queries + t] = make_float2(log_sum, dot);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int from = (lane / 4 + 8 * half) * 2;
      delta[half] = __shfl_sync(0xffffffffu, dot, from);
      lse[half] = __shfl_sync(0xffffffffu, log_sum, from);
    }
  }

  // Scores become probabilities.
  template <int kEights>
  __device__ void exponentials(float (&scores)[kEights][4]) const {
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[n][i] = device::exp2_fast(scores[n][i] * p.scale - lse[i / 2]);
      }
    }
  }
  // From probabilities, and dO Vᵀ in ds: the gradient of the scaled scores.
  template <int kEights>
  __device__ void differentiate(const float (&probabilities)[kEights][4], float (&ds)[kEights][4],
                                uint32_t bits) const {
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float dp = ds[n][i] - delta[i / 2];
        if constexpr (kDrops) {
          const int bit = 16 * (n % 2) + 8 * (i % 2) + 4 * (i / 2) + n / 2;  // of key 2 n + i
          dp = ((bits >> bit & 1u) != 0 ? ds[n][i] : 0.0f) * p.kept_scale - delta[i / 2];
        }
        ds[n][i] = probabilities[n][i] * dp;
      }
    }
  }

  // The same without delta; probabilities and gradients of dropped keys differ only here.
  template <int kEights>
  __device__ void derive(const float (&probabilities)[kEights][4], float (&ds)[kEights][4],
                         uint32_t bits) {
    if constexpr (kDrops) {
#pragma unroll
      for (int n = 0; n < kEights; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int bit = 16 * (n % 2) + 8 * (i % 2) + 4 * (i / 2) + n / 2;  // of key 2 n + i
          ds[n][i] = ((bits >> bit & 1u) != 0 ? ds[n][i] : 0.0f) * p.kept_scale;
        }
      }
    }
    if (derived.is_first) {
      derived.choose_shift(probabilities, ds);
    }
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        ds[n][i] = probabilities[n][i] * (ds[n][i] - derived.shift[i / 2]);
        derived.total[i / 2] += probabilities[n][i];
        derived.weighted[i / 2] += ds[n][i];
      }
    }
  }

  // The first kWidth keys of the present tile, the `tile`th of the task. The sums are complete
  // after the next wait.
  template <int kWidth, bool kMasked>
  __device__ void step(int tile, const Seen& seen, const Draw& draw) {
    constexpr int kEights = kWidth / 8;
    const uint64_t query_tile = device::describe_tile(own_tile);
    const uint64_t dout_tile = device::describe_tile(own_tile + kTileBytes);
    const uint64_t key_tile = device::describe_tile(stage);
    const uint64_t value_tile = device::describe_tile(stage + kTileBytes);
    float scores[kEights][4];
    float ds[kEights][4];
    device::warpgroup_begin();
    multiply_by_transpose<T>(scores, query_tile, key_tile);
    device::warpgroup_commit();
    multiply_by_transpose<T>(ds, dout_tile, value_tile);
    device::warpgroup_commit();
    uint32_t bits = 0;
    if constexpr (kDrops) {
      bits = draw_tile(draw, geo, draw_block, tile);  // under the products
      if (p.masks != nullptr) {
        masks[tile * attention_blocks::kMaskTileWords] = bits;
      }
    }
    device::warpgroup_wait<1>();
    device::settle(scores);
    if (is_active) {
      if constexpr (kMasked) {
        hide_keys<kDrops>(scores, seen, geo, row, tile * kTileRows);
      }
      exponentials(scores);
    }
    device::warpgroup_wait<0>();
    device::settle(ds);
    uint32_t gradients[kWidth / 16][4];
    uint32_t weights[kDerives ? kWidth / 16 : 1][4];
    if (is_active) {
      if constexpr (kDerives) {
        derive(scores, ds, bits);
        pack_rows<T>(weights, scores);
      } else {
        differentiate(scores, ds, bits);
      }
      pack_rows<T>(gradients, ds);
    } else {
      clear_rows(gradients);
      if constexpr (kDerives) {
        clear_rows(weights);
      }
    }
    device::warpgroup_begin();
    if constexpr (kDerives) {
#pragma unroll
      for (int s = 0; s < kWidth / 16; ++s) {
        device::multiply_registers<T, true, true>(derived.keys, weights[s],
                                                  key_tile + s * device::kNextRows);
      }
    }
#pragma unroll
    for (int s = 0; s < kWidth / 16; ++s) {
      device::multiply_registers<T, true, true>(sums, gradients[s],
                                                key_tile + s * device::kNextRows);
    }
    device::warpgroup_commit();
  }

  __device__ void begin(const QueryTask& task) {
    const int warp = static_cast<int>(threadIdx.x / 32);
    row = task.first_row + warp * 16 + static_cast<int>(threadIdx.x % 32) / 4;
    is_active = task.first_row + warp * 16 < geo.queries;
    if constexpr (kDrops) {
      const int lane = static_cast<int>(threadIdx.x % 32);
      draw_block = geo.block_at(task.b, task.head, row, lane % 4 * kProbabilityLanes);
      masks = p.masks + p.mask_tile(task.b, task.head, task.first_row / kTileRows, 0) +
              lane % 4 * 32 + warp * 8 + lane / 4;
    }
    clear_sums(sums);
    if constexpr (kDerives) {
      derived.clear();
      look_at_sums(task);
    } else {
      look_at_rows(task);
    }
  }
  // Subtracts what the sums have too much, and notes delta.
  __device__ void settle_delta(const QueryTask& task) {
    const int64_t of_head = int64_t{task.b} * geo.heads + task.head;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float beyond = derived.beyond_shift(half);
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          sums[n][i] -= beyond * derived.keys[n][i];
        }
      }
      if (threadIdx.x % 4 == 0) {
        p.statistics[of_head * p.padded_queries + row + 8 * half] =
            make_float2(lse[half], derived.shift[half] + beyond);
      }
    }
  }
  __device__ void prefetch_task(const QueryTask& task) const {
    const int rows = geo.queries - task.first_row;
    const int64_t at = geo.query_at(task.b, task.first_row, task.head);
    prefetch_rows(p.q, at, geo.heads * geo.dim, rows, p.dout);
    prefetch_rows(p.out, at, geo.heads * geo.dim, rows, nullptr);
    prefetch_rows(p.k, geo.key_at(task.b, task.first_row, task.head / geo.group()),
                  geo.kv_heads * geo.dim, geo.keys - task.first_row, p.v);
  }

  __device__ void run() {
    const uint32_t stages = device::shared_address(tile_memory);
    const uint32_t query_tiles = stages + 2 * kPairBytes;
    const int blocks = static_cast<int>(gridDim.x);
    int index = static_cast<int>(blockIdx.x);
    QueryTask task(geo, index);
    own_tile = query_tiles;
    stage = stages;
    Seen seen;
    copy_queries(task, own_tile);
    int64_t keys_at = first_keys<kDrops>(geo, task);
    copy_keys<kDrops>(stage, geo, p.k, p.v, keys_at, 0);
    seen.load(geo, task.b, 0);
    const Draw draw(geo.dropout);
    device::copy_async_wait_all();
    device::publish_tiles();
    __syncthreads();
    while (index < p.tasks) {
      begin(task);
      const bool has_next = index + blocks < p.tasks;
      const QueryTask next(geo, has_next ? index + blocks : index);
      const uint32_t next_tile = 2 * query_tiles + kPairBytes - own_tile;
      if (has_next) {
        prefetch_task(next);
      }
      for (int tile = 0; tile < task.key_tiles; ++tile) {
        seen.share(geo, tile * kTileRows);
        const Seen present = seen;
        const uint32_t other_stage = 2 * stages + kPairBytes - stage;
        if (tile + 1 < task.key_tiles) {
          copy_keys<kDrops>(other_stage, geo, p.k, p.v, keys_at, tile + 1);
          seen.load(geo, task.b, (tile + 1) * kTileRows);
        } else if (has_next) {
          copy_queries(next, next_tile);
          keys_at = first_keys<kDrops>(geo, next);
          copy_keys<kDrops>(other_stage, geo, p.k, p.v, keys_at, 0);
          seen.load(geo, next.b, 0);
        }
        take_tile<kDrops>(geo, task, tile, present, [&]<int kWidth, bool kMasked>() {
          step<kWidth, kMasked>(tile, present, draw);
        });
        device::copy_async_wait_all();
        device::publish_tiles();
        device::warpgroup_wait<0>();
        device::settle(sums);
        if constexpr (kDerives) {
          device::settle(derived.keys);
        }
        __syncthreads();
        stage = other_stage;
      }
      if constexpr (kDerives) {
        settle_delta(task);
      }
      if (is_active && (!kDerives || p.to.dq != nullptr)) {
        const int first = row - static_cast<int>(threadIdx.x % 32) / 4;
        const auto scale = static_cast<float>(geo.scale);
        store_rows(p.to.dq + geo.query_at(task.b, first, task.head, p.to.query_row), own_tile, sums,
                   scale, scale, p.to.query_row, geo.queries - first, geo.dim);
      }
      if (p.bias_sums != nullptr) {
        sum_rows(own_tile, sums);
        __syncthreads();
        const int chunk = static_cast<int>(threadIdx.x);
        if (chunk < geo.dim / 4) {
          int again = index;
          asm volatile("" : "+r"(again));  // or parts of the task are spilled to keep them so long
          const QueryTask own(geo, again);
          store_row_sums(p.bias_sums_of(own.b, own.first_row / kTileRows, 0, own.head), own_tile,
                         chunk, static_cast<float>(geo.scale));
        }
      }
      __syncthreads();  // the tiles of queries are free
      index += blocks;
      task = next;
      own_tile = next_tile;
    }
  }
};

}  // namespace lithe::attention_cuda_kernels
