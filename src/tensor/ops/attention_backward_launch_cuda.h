// What goes before and after attention's backward kernel (statistics of the queries, joined parts
// of dq), and the launches. Device-only.
#pragma once

#include "tensor/ops/attention_backward_cuda.h"
#include "tensor/ops/attention_derive_cuda.h"

namespace lithe::attention_cuda_kernels {

template <typename T>
struct StatisticsParams {
  Geometry geometry;
  const T* out = nullptr;
  const T* dout = nullptr;
  const float* lse = nullptr;    // [B, N, T]
  float2* statistics = nullptr;  // [B, N, padded_queries]
  int64_t rows = 0;              // B * padded_queries * N
  int padded_queries = 0;
};

inline constexpr int kStatisticsThreads = 256;
inline constexpr int kLanesOfRow = 8;
inline constexpr int kStatisticsRows = kStatisticsThreads / kLanesOfRow;

// (log-sum-exp in units of log 2, dO · O) of each query; of queries that see nothing or are only
// there to fill a tile (infinity, 0), from which the probability 0 follows.
template <typename T>
__global__ void __launch_bounds__(kStatisticsThreads)
    statistics_kernel(const StatisticsParams<T> p) {
  const Geometry& geo = p.geometry;
  const int lane = static_cast<int>(threadIdx.x) % kLanesOfRow;
  const int64_t row =
      static_cast<int64_t>(blockIdx.x) * kStatisticsRows + threadIdx.x / kLanesOfRow;
  const int64_t head = row % geo.heads;
  const int64_t t = row / geo.heads % p.padded_queries;
  const int64_t b = row / geo.heads / p.padded_queries;
  const bool is_real = row < p.rows && t < geo.queries;
  float sum = 0;
  if (is_real) {
    constexpr int kChunk = device::kWide<T>;
    const int64_t at = geo.query_at(b, t, head);
    for (int i = lane * kChunk; i < geo.dim; i += kLanesOfRow * kChunk) {
      const auto x = device::load<kChunk>(p.out + at + i);
      const auto y = device::load<kChunk>(p.dout + at + i);
#pragma unroll
      for (int j = 0; j < kChunk; ++j) {
        sum += device::widen<float>(x.at[j]) * device::widen<float>(y.at[j]);
      }
    }
  }
#pragma unroll
  for (int step = kLanesOfRow / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, step);
  }
  if (lane == 0 && row < p.rows) {
    float lse = INFINITY;
    if (is_real) {
      const float natural = p.lse[(b * geo.heads + head) * geo.queries + t];
      lse = natural == -INFINITY ? INFINITY : natural * static_cast<float>(kLog2E);
    }
    p.statistics[(b * geo.heads + head) * p.padded_queries + t] =
        make_float2(lse, is_real ? sum : 0.0f);
  }
}

template <typename T>
void launch_statistics(const KernelArgs& args, const Geometry& geometry, float2* statistics,
                       int padded_queries) {
  const StatisticsParams<T> params{.geometry = geometry,
                                   .out = args.in[3].as<const T>(),
                                   .dout = args.in[5].as<const T>(),
                                   .lse = args.in[4].as<const float>(),
                                   .statistics = statistics,
                                   .rows = args.in[0].shape[0] * geometry.heads * padded_queries,
                                   .padded_queries = padded_queries};
  if (params.rows > 0) {
    device::launch_shared(args, statistics_kernel<T>,
                          device::blocks_for(params.rows, kStatisticsRows), kStatisticsThreads, 0,
                          params);
  }
}

// dq from the parts' sums; a block a tile of queries of one head.
template <typename Product, int kDim, typename Rows>
__global__ void __launch_bounds__(QueryGradientTile<Product, kDim>::kThreads)
    join_kernel(const BackwardParams<Rows> p) {
  using Tile = QueryGradientTile<Product, kDim>;
  using Backward = BackwardKernel<Product, kDim, true, true, Rows>;
  const Geometry& geo = p.geometry;
  const int query_block = static_cast<int>(blockIdx.x) % p.query_blocks;
  const int head = static_cast<int>(blockIdx.x) / p.query_blocks % geo.heads;
  const int64_t b = static_cast<int>(blockIdx.x) / p.query_blocks / geo.heads;
  const int last = Backward::last_key_block(geo, p.key_blocks, query_block);
  const int64_t slot_vectors = int64_t{geo.group()} * p.query_blocks * Tile::kVectors;
  const int64_t tile =
      (int64_t{head % geo.group()} * p.query_blocks + query_block) * Tile::kVectors;
  const int64_t task = (b * geo.kv_heads + head / geo.group()) * p.parts;
  typename Tile::Sums sums = {};
  for (int part = 0; part < p.parts && p.key_blocks * part / p.parts <= last; ++part) {
    typename Tile::Sums more;
    Tile::load(more, p.slots + (task + part) * slot_vectors + tile);
#pragma unroll
    for (int i = 0; i < 2 * Tile::kPairs; ++i) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        sums[i][c] += more[i][c];
      }
    }
  }
  const int first = query_block * Tile::kBlock.queries;
  Tile::write(sums, p.to.dq + geo.query_at(b, first, head, p.to.query_row), p.to.query_row,
              geo.queries - first, geo.dim, static_cast<float>(geo.scale));
}

template <typename Product, int kDim, typename Rows>
void launch_backward_blocks(const KernelArgs& args, const BackwardParams<Rows>& params,
                            unsigned blocks) {
  const auto launch = [&]<bool kKeyGradient, bool kValueGradient>() {
    using Kernel = BackwardKernel<Product, kDim, kKeyGradient, kValueGradient, Rows>;
    static_assert(Kernel::kSharedBytes <= 227 * 1024);
    device::launch_shared(args, backward_kernel<Kernel>, blocks, Kernel::kThreads,
                          Kernel::kSharedBytes, params);
  };
  if constexpr (attention_blocks::backward_block(sizeof(typename Product::Element), kDim)
                    .two_passes) {
    if (params.to.dq != nullptr || params.to.dk != nullptr) {
      launch.template operator()<true, false>();
    }
    if (params.to.dv != nullptr) {
      launch.template operator()<false, true>();
    }
  } else {
    launch.template operator()<true, true>();
  }
}

// Shapes and the log-sum-exp's and later inputs are attention_grad's.
template <typename Product, typename Rows>
void launch_backward(const KernelArgs& args, const Geometry& geometry, const Rows& q, const Rows& k,
                     const Rows& v) {
  using T = typename Product::Element;
  const auto attrs = args.attr<AttentionGradAttrs>();
  const attention_blocks::BackwardSplit split(args.in[0].shape, args.in[1].shape, args.in[5].dtype,
                                              attrs.dq);
  device::expect_workspace(args, split.workspace_bytes());
  BackwardParams<Rows> params{.geometry = geometry,
                              .q = q,
                              .k = k,
                              .v = v,
                              .dout = args.in[5].as<const T>(),
                              .to = AttentionGradients<T>(args),
                              .query_blocks = static_cast<int>(split.query_blocks),
                              .key_blocks = static_cast<int>(split.key_blocks),
                              .parts = static_cast<int>(split.parts),
                              .tasks = static_cast<int>(split.tasks)};
  auto* const workspace = static_cast<float*>(args.workspace);
  params.statistics = reinterpret_cast<const float2*>(workspace);
  params.slots = reinterpret_cast<float4*>(workspace + split.statistics_floats);

  auto* const statistics = reinterpret_cast<float2*>(workspace);
  const auto padded_queries = static_cast<int>(split.query_blocks * split.block.queries);
  const bool derives = args.in[3].data == nullptr;
  if (!derives) {
    launch_statistics<T>(args, geometry, statistics, padded_queries);
  }
  const auto launch = [&]<int kDim>() {
    if (derives) {
      launch_derived_statistics<Product, kDim>(args, params, statistics, padded_queries);
    }
    launch_backward_blocks<Product, kDim>(args, params, device::blocks_for(split.blocks, 1));
    const int64_t tiles = split.batch * split.heads * split.query_blocks;
    if (params.to.dq != nullptr && split.parts > 1 && tiles > 0) {
      device::launch_shared(args, join_kernel<Product, kDim, Rows>, device::blocks_for(tiles, 1),
                            split.block.threads(), 0, params);
    }
  };
  attention_blocks::dispatch_dim<sizeof(T)>(geometry.dim, [&]<int kDim>() {
    if constexpr (!Rows::kDecodes || kDim <= attention_blocks::kMostCodedSingleDim) {
      launch.template operator()<kDim>();
    }
  });
  if (attrs.bias_sums) {
    sum_biases(args);
  }
}

}  // namespace lithe::attention_cuda_kernels
