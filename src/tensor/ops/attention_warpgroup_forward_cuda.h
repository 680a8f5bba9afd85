// Attention's forward pass in 16 bits for head dims up to 64 on a warpgroup: a task is 64 queries
// of one head, with a running maximum and sum over tiles of keys. Several blocks share a processor,
// so that the products of one run under the exponentials of another. Device-only.
#pragma once

#include "tensor/ops/attention_forward_cuda.h"
#include "tensor/ops/attention_warpgroup_cuda.h"

namespace lithe::attention_cuda_kernels {

template <typename T_, bool kDrops_>
struct WarpgroupForward {
  using T = T_;
  static constexpr bool kDrops = kDrops_;
  static constexpr int kResident = 3;  // with four, too few registers for products that overlap
  // Two stages of keys and values, the queries of two tasks.
  static constexpr size_t kSharedBytes = 2 * kPairBytes + 2 * kTileBytes;

  const ForwardParams<T>& p;
  const Geometry& geo = p.geometry;
  int row = 0;              // the lane's first query; the second is 8 further
  bool is_active = true;    // the warp has queries
  uint32_t own_tile = 0;    // shared address of the task's queries
  uint32_t stage = 0;       // and of the present keys and values
  uint64_t draw_block = 0;  // dropout's, of the upper row and the lane's first keys
  uint32_t queries[4][4];
  float sums[8][4];
  float maximum[2];
  float denominator[2];

  __device__ void copy_queries(const QueryTask& task, uint32_t to) const {
    const int64_t stride = int64_t{geo.heads} * geo.dim;
    const int64_t at = geo.query_at(task.b, task.first_row, task.head) + own_chunk<false>(stride);
    copy_rows<false>(to, p.q + at, stride, geo.queries - task.first_row, geo.dim);
  }

  // Scores become exp(score - maximum), where the maximum may be an earlier one as long as no
  // exponential exceeds 2^kSlack; where it has to grow, the sums shrink.
  template <int kEights>
  __device__ void exponentials(float (&scores)[kEights][4], float scale) {
    constexpr float kSlack = 8;
    float top[2] = {maximum[0], maximum[1]};
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        top[half] = fmaxf(top[half], fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
      }
    }
    // NaN where nothing has been visible yet, and is not now.
    const bool grows =
        (top[0] - maximum[0]) * scale > kSlack || (top[1] - maximum[1]) * scale > kSlack;
    if (__any_sync(0xffffffffu, grows)) {
      grow(top, scale);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // No visible key so far: any finite number in place of the maximum gives exp(-infinity).
      const float from = maximum[half] == -INFINITY ? 0.0f : maximum[half] * scale;
      float sum[2] = {};
#pragma unroll
      for (int n = 0; n < kEights; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& x = scores[n][2 * half + i];
          x = device::exp2_fast(x * scale - from);
          sum[i] += x;
        }
      }
      denominator[half] += sum[0] + sum[1];
    }
  }
  __device__ void grow(const float (&own_top)[2], float scale) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = own_top[half];
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      const float from = top == -INFINITY ? 0.0f : top * scale;
      const float shrink = device::exp2_fast(maximum[half] * scale - from);
      maximum[half] = top;
      denominator[half] *= shrink;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        sums[n][2 * half] *= shrink;
        sums[n][2 * half + 1] *= shrink;
      }
    }
  }

  // Dropped probabilities become 0: of key k of the lane's sixteen bit 8 (k % 4) + 4 row + k / 4
  // says so, and left operand i has the keys 4 s + 2 (i / 2) and + 1.
  template <int kSteps>
  __device__ static void drop(uint32_t (&weights)[kSteps][4], uint32_t bits) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const uint32_t upper = bits << (7 - 4 * row - s);
        weights[s][row] = keep_pair<0>(weights[s][row], upper);
        weights[s][row + 2] = keep_pair<1>(weights[s][row + 2], upper);
      }
    }
  }

  // The first kWidth keys of the present tile, the `tile`th of the task. The sums are complete
  // after the next wait.
  template <int kWidth, bool kMasked>
  __device__ void step(int tile, const Seen& seen, const Draw& draw) {
    constexpr int kEights = kWidth / 8;
    const uint64_t key_tile = device::describe_tile(stage);
    const uint64_t value_tile = device::describe_tile(stage + kTileBytes);
    float scores[kEights][4];
    device::warpgroup_begin();
    multiply_by_transpose<T>(scores, queries, key_tile);
    device::warpgroup_commit();
    uint32_t bits = 0;
    if constexpr (kDrops) {
      bits = draw_tile(draw, geo, draw_block, tile);  // under the products
    }
    device::warpgroup_wait<0>();
    device::settle(scores);
    device::settle(sums);
    uint32_t weights[kWidth / 16][4];
    if (is_active) {
      if constexpr (kMasked) {
        hide_keys<kDrops>(scores, seen, geo, row, tile * kTileRows);
      }
      exponentials(scores, static_cast<float>(geo.scale * kLog2E));
      pack_rows<T>(weights, scores);
      if constexpr (kDrops) {
        drop(weights, bits);
      }
    } else {
      clear_rows(weights);
    }
    device::warpgroup_begin();
#pragma unroll
    for (int s = 0; s < kWidth / 16; ++s) {
      device::multiply_registers<T, true, true>(sums, weights[s],
                                                value_tile + s * device::kNextRows);
    }
    device::warpgroup_commit();
  }

  // Sums over denominators, and the log-sum-exp.
  __device__ void finish(const QueryTask& task) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const auto kept_scale = static_cast<float>(geo.dropout.kept_scale);
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = denominator[half];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      factor[half] = sum == 0 ? 0.0f : kept_scale / sum;
      const int t = row + half * 8;
      if (lane % 4 == 0 && t < geo.queries) {
        p.lse[(int64_t{task.b} * geo.heads + task.head) * geo.queries + t] =
            sum == 0 ? -INFINITY : maximum[half] * static_cast<float>(geo.scale) + logf(sum);
      }
    }
    const int first = row - lane / 4;
    store_rows(p.out + geo.query_at(task.b, first, task.head), own_tile, sums, factor[0], factor[1],
               int64_t{geo.heads} * geo.dim, geo.queries - first, geo.dim);
  }

  __device__ void begin(const QueryTask& task) {
    const int warp = static_cast<int>(threadIdx.x / 32);
    row = task.first_row + warp * 16 + static_cast<int>(threadIdx.x % 32) / 4;
    is_active = task.first_row + warp * 16 < geo.queries;
    if constexpr (kDrops) {
      draw_block = geo.block_at(task.b, task.head, row,
                                static_cast<int>(threadIdx.x % 4) * kProbabilityLanes);
    }
    clear_sums(sums);
    maximum[0] = maximum[1] = -INFINITY;
    denominator[0] = denominator[1] = 0;
    load_rows(queries, own_tile);
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
      const uint32_t next_tile = 2 * query_tiles + kTileBytes - own_tile;
      if (has_next) {
        prefetch_rows(p.q, geo.query_at(next.b, next.first_row, next.head), geo.heads * geo.dim,
                      geo.queries - next.first_row, nullptr);
        prefetch_rows(p.k, geo.key_at(next.b, next.first_row, next.head / geo.group()),
                      geo.kv_heads * geo.dim, geo.keys - next.first_row, p.v);
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
        __syncthreads();
        stage = other_stage;
      }
      if (is_active) {
        finish(task);
      }
      __syncthreads();  // the tile of queries is free
      index += blocks;
      task = next;
      own_tile = next_tile;
    }
  }
};

template <typename Kernel>
__global__ void __launch_bounds__(kWarpgroupThreads, Kernel::kResident)
    warpgroup_forward_kernel(const ForwardParams<typename Kernel::T> params) {
  Kernel{params}.run();
}

template <typename T, bool kDrops>
void launch_warpgroup_forward(const KernelArgs& args, const Geometry& geometry) {
  using Kernel = WarpgroupForward<T, kDrops>;
  const int tasks = query_tasks(args, geometry);
  const ForwardParams<T> params{.geometry = geometry,
                                .q = args.in[0].as<const T>(),
                                .k = args.in[1].as<const T>(),
                                .v = args.in[2].as<const T>(),
                                .out = args.out[0].as<T>(),
                                .lse = args.out[1].as<float>(),
                                .tasks = tasks};
  device::launch_shared(args, warpgroup_forward_kernel<Kernel>, running_blocks<Kernel>(tasks),
                        kWarpgroupThreads, Kernel::kSharedBytes, params);
}

template <typename T>
void launch_warpgroup_forward(const KernelArgs& args, const Geometry& geometry) {
  if (geometry.dropout.rng != nullptr) {
    launch_warpgroup_forward<T, true>(args, geometry);
  } else {
    launch_warpgroup_forward<T, false>(args, geometry);
  }
}

}  // namespace lithe::attention_cuda_kernels
