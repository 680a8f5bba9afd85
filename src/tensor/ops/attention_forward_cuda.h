// Attention's forward pass on tensor cores (after FlashAttention-2, Dao 2023): a block holds some
// queries of one head, walks over tiles of keys with a running maximum and sum, and stores neither
// scores nor probabilities. Device-only.
#pragma once

#include "tensor/ops/attention_cuda.h"

namespace lithe::attention_cuda_kernels {

template <typename T>
struct ForwardParams {
  Geometry geometry;
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  T* out = nullptr;
  float* lse = nullptr;
  int tasks = 0;  // of the warpgroup kernel
};

template <typename Product, int kDim_>
struct ForwardKernel {
  using T = typename Product::Element;
  static constexpr int kDim = kDim_;
  static constexpr auto kBlock = attention_blocks::forward_block(sizeof(T), kDim);
  static constexpr int kThreads = kBlock.threads();
  static constexpr int kRows = kBlock.queries();
  static constexpr int kKeys = kBlock.keys;
  static constexpr int kWarpRows = 16 * kBlock.row_tiles;
  static constexpr int kRowTiles = kBlock.row_tiles;
  static constexpr int kDepth = Product::kDepth;
  static constexpr int kLd = padded_row<T>(kDim);
  static constexpr int kWords = kKeys / 32;  // of a bit for each key of a tile
  static constexpr bool kKeepsQueries = sizeof(T) == 2 && kDim <= 128;  // in registers
  // Queries, then two stages of a tile of keys and one of values.
  static constexpr size_t kSharedBytes = (kRows + 4 * kKeys) * kLd * sizeof(T);

  using Queries = typename Product::A[kRowTiles][kDim / kDepth];
  using Scores = float[kRowTiles][kKeys / 8][4];
  using Sums = float[kRowTiles][kDim / 8][4];

  const ForwardParams<T>& p;
  const Geometry& geo = p.geometry;
  int64_t b = 0;
  int head = 0;
  int row = 0;                      // of the warp's first query
  const T* queries_tile = nullptr;  // the warp's rows

  // scores = Q Kᵀ of the warp's queries and a tile of keys.
  __device__ void score(Scores& scores, const Queries& queries, const T* keys) const {
#pragma unroll
    for (int step = 0; step < kDim / kDepth; ++step) {
      typename Product::A a[kRowTiles];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        if constexpr (kKeepsQueries) {
          a[m] = queries[m][step];
        } else {
          a[m] = Product::load_a(queries_tile + m * 16 * kLd + step * kDepth, kLd);
        }
      }
#pragma unroll
      for (int pair = 0; pair < kKeys / 16; ++pair) {
        typename Product::B key[2];
        Product::load_b(key, keys + pair * 16 * kLd + step * kDepth, kLd);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Product::multiply(scores[m][2 * pair], a[m], key[0]);
          Product::multiply(scores[m][2 * pair + 1], a[m], key[1]);
        }
      }
    }
  }

  // Hidden keys get scores of -infinity; `seen` has a bit for each key from `first` on.
  __device__ void hide(Scores& scores, const uint32_t (&seen)[kWords], int first) const {
    const int group = static_cast<int>(threadIdx.x % 32 / 4);
    const int place = static_cast<int>(threadIdx.x % 4);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int limit = geo.visible(row + m * 16 + half * 8 + group) - first - 2 * place;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const bool is_seen = (seen[n / 4] >> (n % 4 * 8 + 2 * place + i) & 1u) != 0;
            if (!is_seen || n * 8 + i >= limit) {
              scores[m][n][2 * half + i] = -INFINITY;
            }
          }
        }
      }
    }
  }

  // Scores become exp(score - maximum); sums shrink by what the maximum grew.
  __device__ void exponentials(Scores& scores, Sums& sums, float (&maximum)[kRowTiles][2],
                               float (&denominator)[kRowTiles][2]) const {
    const float scale = static_cast<float>(geo.scale * kLog2E);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = maximum[m][half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
          top = fmaxf(top, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        // No visible key so far: any finite number in place of the maximum gives exp(-infinity).
        const float from = top == -INFINITY ? 0.0f : top * scale;
        const float shrink = device::exp2_fast(maximum[m][half] * scale - from);
        maximum[m][half] = top;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            scores[m][n][i] = device::exp2_fast(scores[m][n][i] * scale - from);
            sum += scores[m][n][i];
          }
        }
        denominator[m][half] = denominator[m][half] * shrink + sum;
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          sums[m][n][2 * half] *= shrink;
          sums[m][n][2 * half + 1] *= shrink;
        }
      }
    }
  }

  // Dropped probabilities become 0.
  __device__ void drop(Scores& p_tile, const Draw& draw, int first) const {
    const int group = static_cast<int>(threadIdx.x % 32 / 4);
    const int place = static_cast<int>(threadIdx.x % 4);
    const auto row_blocks = static_cast<uint64_t>(probability_blocks(geo.keys));
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const uint64_t block = geo.block_at(b, head, row + m * 16 + group, first + 16 * place);
      const uint32_t bits = swap_for_queries(draw.keeps_blocks(block, block + 8 * row_blocks));
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if ((bits >> bit_for_queries(n, i / 2, i % 2) & 1u) == 0) {
            p_tile[m][n][i] = 0;
          }
        }
      }
    }
  }

  // sums += P V.
  __device__ void weigh(Sums& sums, const Scores& p_tile, const T* values) const {
#pragma unroll
    for (int step = 0; step < kKeys / kDepth; ++step) {
      typename Product::A a[kRowTiles];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        a[m] = Product::from_sums(p_tile[m] + step * (kDepth / 8));
      }
#pragma unroll
      for (int pair = 0; pair < kDim / 16; ++pair) {
        typename Product::B value[2];
        Product::load_b_transposed(value, values + step * kDepth * kLd + pair * 16, kLd);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          Product::multiply(sums[m][2 * pair], a[m], value[0]);
          Product::multiply(sums[m][2 * pair + 1], a[m], value[1]);
        }
      }
    }
  }

  // sums / denominator and the log-sum-exp, through the warp's rows of the tile of queries.
  __device__ void finish(const Sums& sums, const float (&maximum)[kRowTiles][2],
                         const float (&denominator)[kRowTiles][2], T* tile) const {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const auto kept_scale = static_cast<float>(geo.dropout.kept_scale);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      float factor[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = denominator[m][half];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        factor[half] = sum == 0 ? 0.0f : kept_scale / sum;
        const int t = row + m * 16 + half * 8 + lane / 4;
        if (lane % 4 == 0 && t < geo.queries) {
          p.lse[(b * geo.heads + head) * geo.queries + t] =
              sum == 0 ? -INFINITY : maximum[m][half] * static_cast<float>(geo.scale) + logf(sum);
        }
      }
      sums_to_tile<Product, kDim>(tile + m * 16 * kLd, sums[m], factor[0], factor[1]);
    }
    __syncwarp();
    store_tile<kWarpRows, kDim>(p.out + geo.query_at(b, row, head), tile,
                                int64_t{geo.heads} * geo.dim, geo.queries - row, geo.dim);
  }

  __device__ void run() {
    T* const shared = reinterpret_cast<T*>(shared_memory);
    const int warp = static_cast<int>(threadIdx.x / 32);
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int blocks = (geo.queries + kRows - 1) / kRows;
    // With causality the last queries see most: they go first.
    const int first_row = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * kRows;
    head = static_cast<int>(blockIdx.x) / blocks % geo.heads;
    b = static_cast<int>(blockIdx.x) / blocks / geo.heads;
    row = first_row + warp * kWarpRows;
    T* const own_queries = shared + warp * kWarpRows * kLd;
    queries_tile = own_queries;
    T* const tiles = shared + kRows * kLd;
    const int kv_head = head / geo.group();
    const int64_t stride = int64_t{geo.kv_heads} * geo.dim;

    const auto copy_keys = [&](int tile) {
      T* const to = tiles + tile % 2 * 2 * kKeys * kLd;
      const int64_t at = geo.key_at(b, tile * kKeys, kv_head);
      const int rows = geo.keys - tile * kKeys;
      copy_tile<kKeys, kDim, kThreads>(to, p.k + at, stride, rows, geo.dim);
      copy_tile<kKeys, kDim, kThreads>(to + kKeys * kLd, p.v + at, stride, rows, geo.dim);
    };
    const auto sees = [&](int tile, uint32_t(&own)[kWords]) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        own[w] = geo.sees(b, tile * kKeys + 32 * w + lane);
      }
    };

    const int last_row = min(first_row + kRows, geo.queries) - 1;
    const int key_tiles = (geo.visible(last_row) + kKeys - 1) / kKeys;
    copy_tile<kRows, kDim, kThreads>(shared, p.q + geo.query_at(b, first_row, head),
                                     int64_t{geo.heads} * geo.dim, geo.queries - first_row,
                                     geo.dim);
    uint32_t next_seen[kWords] = {};
    if (key_tiles > 0) {
      copy_keys(0);
      sees(0, next_seen);
    }
    const Draw draw(geo.dropout);
    const bool is_active = row < geo.queries;
    Queries queries;
    Sums sums = {};
    float maximum[kRowTiles][2];
    float denominator[kRowTiles][2] = {};
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      maximum[m][0] = maximum[m][1] = -INFINITY;
    }
    for (int tile = 0; tile < key_tiles; ++tile) {
      device::copy_async_wait_all();
      __syncthreads();
      if (kKeepsQueries && tile == 0) {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
          for (int step = 0; step < kDim / kDepth; ++step) {
            queries[m][step] = Product::load_a(own_queries + m * 16 * kLd + step * kDepth, kLd);
          }
        }
      }
      uint32_t seen[kWords];
      bool sees_some = false;
      bool sees_all = geo.visible(row) >= (tile + 1) * kKeys;
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        seen[w] = __ballot_sync(0xffffffffu, next_seen[w] != 0);
        sees_some = sees_some || seen[w] != 0;
        sees_all = sees_all && seen[w] == 0xffffffffu;
      }
      if (tile + 1 < key_tiles) {
        copy_keys(tile + 1);
        sees(tile + 1, next_seen);
      }
      if (is_active && sees_some) {
        const T* const keys = tiles + tile % 2 * 2 * kKeys * kLd;
        Scores scores = {};
        score(scores, queries, keys);
        if (!sees_all) {
          hide(scores, seen, tile * kKeys);
        }
        exponentials(scores, sums, maximum, denominator);
        if (geo.dropout.rng != nullptr) {
          drop(scores, draw, tile * kKeys);
        }
        weigh(sums, scores, keys + kKeys * kLd);
      }
    }
    device::copy_async_wait_all();
    __syncthreads();
    if (is_active) {
      finish(sums, maximum, denominator, own_queries);
    }
  }
};

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kBlock.resident)
    forward_kernel(const ForwardParams<typename Kernel::T> params) {
  Kernel{params}.run();
}

template <typename Product>
void launch_forward(const KernelArgs& args, const Geometry& geometry) {
  using T = typename Product::Element;
  const ForwardParams<T> params{.geometry = geometry,
                                .q = args.in[0].as<const T>(),
                                .k = args.in[1].as<const T>(),
                                .v = args.in[2].as<const T>(),
                                .out = args.out[0].as<T>(),
                                .lse = args.out[1].as<float>()};
  attention_blocks::dispatch_dim<sizeof(T)>(geometry.dim, [&]<int kDim>() {
    using Kernel = ForwardKernel<Product, kDim>;
    const int64_t pairs = args.in[0].shape[0] * geometry.heads;
    const int64_t blocks = pairs * ((geometry.queries + Kernel::kRows - 1) / Kernel::kRows);
    device::launch_shared(args, forward_kernel<Kernel>, device::blocks_for(blocks, 1),
                          Kernel::kThreads, Kernel::kSharedBytes, params);
  });
}

}  // namespace lithe::attention_cuda_kernels
