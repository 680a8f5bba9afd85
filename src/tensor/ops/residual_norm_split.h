// How the CUDA kernels of residual_norm share rows over blocks, shared with the planned workspace.
#pragma once

#include <algorithm>

#include "tensor/core/shape.h"
#include "tensor/ops/processors.h"

namespace lithe {

inline constexpr int64_t kNormBlocks = 2 * kProcessors;
inline constexpr int64_t kLongestWarpRow = 1024;    // longer rows take a block each
inline constexpr int64_t kLongestWalkedRow = 8192;  // longer ones are read twice

// Warps that share a block, a row each.
constexpr int norm_warps_of_block(int64_t element_bytes) { return element_bytes == 2 ? 8 : 4; }

// Blocks that walk over the rows of x [rows, size]; 0: rows that only the general kernels take.
inline int64_t norm_blocks(int64_t rows, int64_t size, DType dtype) {
  const int64_t element_bytes = dtype_bits(dtype) / 8;
  const bool wide = size * element_bytes % 16 == 0;
  if (dtype == DType::f64 || size == 0 || size > kLongestWalkedRow || !wide) {
    return 0;
  }
  const int64_t at_once = size > kLongestWarpRow ? 1 : norm_warps_of_block(element_bytes);
  return std::min(kNormBlocks, (rows + at_once - 1) / at_once);
}

// Sums that each of those blocks makes over its rows where any is wanted: beta's, gamma's where it
// is trained, the bias's where it is wanted or gamma's is not.
constexpr int norm_sums(bool gamma, bool bias) { return gamma && bias ? 3 : 2; }

}  // namespace lithe
