// Statistics of the queries where attention's backward pass has no output to take delta from: a
// sweep over the keys gives rowsum(P ∘ dP) / rowsum(P). Device-only.
#pragma once

#include "tensor/ops/attention_backward_cuda.h"

namespace lithe::attention_cuda_kernels {

// Rows: PlainRows or CodedRows.
template <typename Rows>
struct DeriveParams {
  using T = typename Rows::T;
  Geometry geometry;
  Rows q{};
  Rows k{};
  Rows v{};
  const T* dout = nullptr;
  const float* lse = nullptr;    // [B, N, T]
  float2* statistics = nullptr;  // [B, N, padded_queries], see statistics_kernel
  int padded_queries = 0;
};

// A block has some queries of one head, 16 a warp, and walks over tiles of keys.
template <typename Product, int kDim_, typename Rows_>
struct DeriveKernel {
  using Rows = Rows_;
  using T = typename Product::Element;
  static constexpr int kDim = kDim_;
  static constexpr int kWarps = sizeof(T) == 2 || kDim <= 128 ? 8 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = 16 * kWarps;
  static constexpr int kKeys = 32;
  static constexpr int kDepth = Product::kDepth;
  static constexpr int kLd = padded_row<T>(kDim);
  // Queries and output gradients, a tile of keys and one of values.
  static constexpr size_t kSharedBytes = (2 * kRows + 2 * kKeys) * kLd * sizeof(T);
  static_assert(kSharedBytes <= 227 * 1024);

  using Scores = float[kKeys / 8][4];

  const DeriveParams<Rows>& p;
  const Geometry& geo = p.geometry;

  // The warp's 16 rows by the transpose of a tile of keys or values.
  __device__ static void multiply(Scores& scores, const T* rows, const T* tile) {
#pragma unroll
    for (int step = 0; step < kDim / kDepth; ++step) {
      const typename Product::A a = Product::load_a(rows + step * kDepth, kLd);
#pragma unroll
      for (int pair = 0; pair < kKeys / 16; ++pair) {
        typename Product::B key[2];
        Product::load_b(key, tile + pair * 16 * kLd + step * kDepth, kLd);
        Product::multiply(scores[2 * pair], a, key[0]);
        Product::multiply(scores[2 * pair + 1], a, key[1]);
      }
    }
  }

  __device__ void run() const {
    T* const queries = reinterpret_cast<T*>(shared_memory);
    T* const dout = queries + kRows * kLd;
    T* const keys = dout + kRows * kLd;
    T* const values = keys + kKeys * kLd;
    const int warp = static_cast<int>(threadIdx.x / 32);
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int place = lane % 4;
    const int blocks = (p.padded_queries + kRows - 1) / kRows;
    const int first_row = static_cast<int>(blockIdx.x) % blocks * kRows;
    const int head = static_cast<int>(blockIdx.x) / blocks % geo.heads;
    const int64_t b = static_cast<int>(blockIdx.x) / blocks / geo.heads;
    const int64_t of_head = b * geo.heads + head;
    const int row = first_row + warp * 16 + lane / 4;  // the lane's first; the second is 8 further
    const int kv_head = head / geo.group();
    const int64_t key_stride = int64_t{geo.kv_heads} * geo.dim;
    const int rows = geo.queries - first_row;
    const int64_t query_at = geo.query_at(b, first_row, head);
    const int64_t query_stride = int64_t{geo.heads} * geo.dim;
    if (rows > 0) {
      p.q.template copy<kRows, kDim, kThreads>(queries, query_at, query_stride, rows, geo.dim);
      copy_tile<kRows, kDim, kThreads>(dout, p.dout + query_at, query_stride, rows, geo.dim);
    }
    float lse[2];
    int visible[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = row + 8 * half;
      const float natural = t < geo.queries ? p.lse[of_head * geo.queries + t] : -INFINITY;
      lse[half] = natural == -INFINITY ? INFINITY : natural * static_cast<float>(kLog2E);
      visible[half] = geo.visible(t);
    }
    const Draw draw(geo.dropout);
    const bool drops = geo.dropout.rng != nullptr;
    const auto row_blocks = static_cast<uint64_t>(probability_blocks(geo.keys));
    const float scale = static_cast<float>(geo.scale * kLog2E);
    const auto kept_scale = static_cast<float>(geo.dropout.kept_scale);
    const int last_row = min(first_row + kRows, geo.queries) - 1;
    const int key_tiles = rows > 0 ? (geo.visible(last_row) + kKeys - 1) / kKeys : 0;
    float total[2] = {};
    float weighted[2] = {};
    for (int tile = 0; tile < key_tiles; ++tile) {
      const int first = tile * kKeys;
      __syncthreads();  // the tile before has been read
      const int64_t at = geo.key_at(b, first, kv_head);
      const int key_rows = geo.keys - first;
      p.k.template copy<kKeys, kDim, kThreads>(keys, at, key_stride, key_rows, geo.dim);
      p.v.template copy<kKeys, kDim, kThreads>(values, at, key_stride, key_rows, geo.dim);
      const uint32_t seen = __ballot_sync(0xffffffffu, geo.sees(b, first + lane) != 0);
      device::copy_async_wait_all();
      if (tile == 0) {
        p.q.template decode<kRows, kDim, kThreads>(queries, query_at, query_stride);
      }
      p.k.template decode<kKeys, kDim, kThreads>(keys, at, key_stride);
      p.v.template decode<kKeys, kDim, kThreads>(values, at, key_stride);
      __syncthreads();
      if (seen == 0 || first_row + warp * 16 >= geo.queries) {
        continue;  // alike in all lanes of the warp
      }
      Scores scores = {};
      Scores dp = {};
      multiply(scores, queries + warp * 16 * kLd, keys);
      multiply(dp, dout + warp * 16 * kLd, values);
      uint32_t bits = 0xffffffffu;
      if (drops) {
        const uint64_t block = geo.block_at(b, head, row, first + 16 * place);
        bits = swap_for_queries(draw.keeps_blocks(block, block + 8 * row_blocks));
      }
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = n * 8 + 2 * place + i % 2;
          const bool is_seen = (seen >> key & 1u) != 0 && first + key < visible[i / 2];
          const float probability =
              is_seen ? device::exp2_fast(scores[n][i] * scale - lse[i / 2]) : 0.0f;
          float factor = 1;
          if (drops) {
            factor = (bits >> bit_for_queries(n, i / 2, i % 2) & 1u) != 0 ? kept_scale : 0.0f;
          }
          total[i / 2] += probability;
          weighted[i / 2] += probability * dp[n][i] * factor;
        }
      }
    }
    device::copy_async_wait_all();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float all = quad_sum(total[half]);
      const float of_gradients = quad_sum(weighted[half]);
      const int t = row + 8 * half;
      if (place == 0 && t < p.padded_queries) {
        p.statistics[of_head * p.padded_queries + t] =
            make_float2(lse[half], all > 0 ? of_gradients / all : 0.0f);
      }
    }
  }
};

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads)
    derive_kernel(const DeriveParams<typename Kernel::Rows> params) {
  Kernel{params}.run();
}

template <typename Product, int kDim, typename Rows>
void launch_derived_statistics(const KernelArgs& args, const BackwardParams<Rows>& backward,
                               float2* statistics, int padded_queries) {
  using Kernel = DeriveKernel<Product, kDim, Rows>;
  const Geometry& geometry = backward.geometry;
  const DeriveParams<Rows> params{.geometry = geometry,
                                  .q = backward.q,
                                  .k = backward.k,
                                  .v = backward.v,
                                  .dout = backward.dout,
                                  .lse = args.in[4].as<const float>(),
                                  .statistics = statistics,
                                  .padded_queries = padded_queries};
  const int64_t heads = args.in[0].shape[0] * geometry.heads;
  const int64_t blocks = heads * ((padded_queries + Kernel::kRows - 1) / Kernel::kRows);
  device::launch_shared(args, derive_kernel<Kernel>, device::blocks_for(blocks, 1),
                        Kernel::kThreads, Kernel::kSharedBytes, params);
}

}  // namespace lithe::attention_cuda_kernels
