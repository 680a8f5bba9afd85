// How the CUDA kernels of attention cut their work; the planner asks for the workspace that follows
// from it. Tensor-core kernels exist for some head dims; others are padded to the next one with
// zeros in shared memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "tensor/core/dtype.h"
#include "tensor/core/shape.h"
#include "tensor/ops/processors.h"

namespace lithe::attention_blocks {

inline constexpr int kHalfDims[] = {32, 48, 64, 80, 96, 128, 160, 256};
inline constexpr int kSingleDims[] = {32, 64, 128, 256};
inline constexpr int kMostCodedSingleDim = 64;  // whose kernels decode int8 operands themselves

// A block of queries meets tiles of keys; each warp has 16 * row_tiles queries of its own.
struct ForwardBlock {
  int warps;
  int row_tiles;
  int keys;      // of a tile
  int resident;  // blocks a processor shall hold
  constexpr int threads() const { return 32 * warps; }
  constexpr int queries() const { return 16 * row_tiles * warps; }
};
constexpr ForwardBlock forward_block(int element_bytes, int dim) {
  if (element_bytes == 2) {
    return dim <= 64    ? ForwardBlock{4, 2, 64, 2}
           : dim <= 160 ? ForwardBlock{8, 1, 64, 1}
                        : ForwardBlock{8, 1, 32, 1};
  }
  return dim <= 128 ? ForwardBlock{8, 1, 64, 1} : ForwardBlock{4, 1, 32, 1};
}

// A block of keys, 16 a warp, meets tiles of queries.
struct BackwardBlock {
  int warps;
  int queries;      // of a tile
  bool two_passes;  // dk and dv do not fit in registers together
  constexpr int threads() const { return 32 * warps; }
  constexpr int keys() const { return 16 * warps; }
};
constexpr BackwardBlock backward_block(int element_bytes, int dim) {
  if (element_bytes == 2) {
    return dim <= 96 ? BackwardBlock{8, 64, false} : BackwardBlock{8, 32, dim > 160};
  }
  return dim <= 128 ? BackwardBlock{8, 32, false} : BackwardBlock{4, 16, true};
}

// dq [queries of a tile, dim] is shared out over the warps in tiles of [16, 16].
constexpr int dq_pairs(const BackwardBlock& block, int dim) {
  const int columns = block.warps * 16 / block.queries;  // warps side by side
  return (dim / 16 + columns - 1) / columns;
}

// Calls f.operator()<kDim>() with the kernels' head dim for `dim`; false where there is none.
template <int kBytes, typename F>
bool dispatch_dim(int64_t dim, F&& f) {
  const auto reach = [&]<int kDim>() {
    if (dim > kDim) {
      return false;
    }
    f.template operator()<kDim>();
    return true;
  };
  if constexpr (kBytes == 2) {
    return [&]<size_t... kAt>(std::index_sequence<kAt...>) {
      return (reach.template operator()<kHalfDims[kAt]>() || ...);
    }
    (std::make_index_sequence<std::size(kHalfDims)>());
  } else {
    return [&]<size_t... kAt>(std::index_sequence<kAt...>) {
      return (reach.template operator()<kSingleDims[kAt]>() || ...);
    }
    (std::make_index_sequence<std::size(kSingleDims)>());
  }
}

// Rows must be whole 16-byte chunks; the running maximum is that of the unscaled scores, which the
// scale must not turn around.
inline bool on_tensor_cores(DType dtype, int64_t dim, double scale) {
  return dtype != DType::f64 && dim % 8 == 0 && dim <= 256 && static_cast<float>(scale) > 0;
}

// 16-bit operands that the kernels for warpgroups take (attention_warpgroup_cuda.h).
inline bool on_warpgroups(DType dtype, int64_t dim) { return dtype_bits(dtype) == 16 && dim <= 64; }
// Queries of one head in whole tiles, and the statistics of them all: two fp32 each.
inline int64_t padded_queries(const Shape& q) { return (q[1] + 63) / 64 * 64; }
inline int64_t statistics_bytes(const Shape& q) { return q[0] * q[2] * padded_queries(q) * 8; }
// Which probabilities dropout keeps, a bit each, in tiles of 64 queries and 64 keys: what the first
// of two kernels of the backward pass drew and the second one reads. Nothing where there is one.
inline constexpr int kMaskTileWords = 64 * 64 / 32;
inline int64_t mask_bytes(const Shape& q, const Shape& k, bool is_shared) {
  const int64_t tiles = q[0] * q[2] * (padded_queries(q) / 64) * ((k[1] + 63) / 64);
  return is_shared ? tiles * kMaskTileWords * 4 : 0;
}
// The sums of packed dq, dk and dv over the rows of each tile: [B, tiles of queries, 3, N, D] in
// fp32.
inline int64_t bias_sum_rows(const Shape& q) { return q[0] * (padded_queries(q) / 64); }
inline int64_t bias_sums_bytes(const Shape& q, bool is_wanted) {
  return is_wanted ? bias_sum_rows(q) * 3 * q[2] * q[3] * 4 : 0;
}

// The backward pass on tensor cores. A task is a key head of one sequence, perhaps only a part of
// its key blocks. dq adds up over the key blocks in fp32, in a slot of the workspace: one a running
// block where a task has all key blocks of its head, else one a task, which are joined at the end.
struct BackwardSplit {
  BackwardSplit(const Shape& q, const Shape& k, DType dtype, bool wants_dq)
      : batch(q[0]), queries(q[1]), heads(q[2]), dim(q[3]), keys(k[1]), kv_heads(k[2]) {
    const int bytes = dtype_bits(dtype) / 8;
    const auto use = [&]<int kDim>(int element_bytes) {
      block = backward_block(element_bytes, kDim);
      padded_dim = kDim;
    };
    if (bytes == 2) {
      dispatch_dim<2>(dim, [&]<int kDim>() { use.template operator()<kDim>(2); });
    } else {
      dispatch_dim<4>(dim, [&]<int kDim>() { use.template operator()<kDim>(4); });
    }
    group = heads / kv_heads;
    query_blocks = ceil_div(queries, block.queries);
    key_blocks = ceil_div(keys, block.keys());
    const int64_t heads_of_keys = batch * kv_heads;
    parts = std::clamp<int64_t>(kProcessors / std::max<int64_t>(heads_of_keys, 1), 1,
                                std::max<int64_t>(key_blocks, 1));
    tasks = heads_of_keys * parts;
    const bool adds_up = wants_dq && key_blocks > 1;
    slots = adds_up ? std::min(tasks, kProcessors) : 0;
    blocks = adds_up ? slots : tasks;
    tile_floats = int64_t{dq_pairs(block, padded_dim)} * 8 * block.threads();
    slot_floats = group * query_blocks * tile_floats;
    statistics_floats = batch * heads * query_blocks * block.queries * 2;
  }

  // Statistics of the queries, then the slots.
  int64_t workspace_bytes() const { return (statistics_floats + slots * slot_floats) * 4; }

  int64_t batch, queries, heads, dim, keys, kv_heads;
  int64_t group = 1;  // query heads that share a key head
  BackwardBlock block{};
  int padded_dim = 0;
  int64_t query_blocks = 0, key_blocks = 0;
  int64_t parts = 1, tasks = 0, slots = 0;
  int64_t blocks = 0;             // of the launch: each takes every blocks-th task
  int64_t tile_floats = 0;        // dq of one head and one tile of queries
  int64_t slot_floats = 0;        // dq of a task
  int64_t statistics_floats = 0;  // [B, N, query_blocks * queries of a tile, 2]

 private:
  static int64_t ceil_div(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
};

}  // namespace lithe::attention_blocks
