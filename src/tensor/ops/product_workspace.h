// The scratch memory of matrix products.
#pragma once

#include <algorithm>

#include "tensor/graph/graph.h"
#include "tensor/ops/column_sum.h"
#include "tensor/ops/matmul.h"

namespace lithe {

// On CUDA partial products, for sums that the library splits; it makes use of 32 MiB at most.
inline constexpr int64_t kMostSplit = int64_t{32} << 20;
inline int64_t workspace_split(const Graph& g, NodeId n) {
  constexpr int64_t kBytesOfResult = 64 * int64_t{sizeof(float)};  // of 64 parts
  const int64_t results = g.shape(g.output(n, 0)).numel();
  return results > kMostSplit / kBytesOfResult ? kMostSplit : results * kBytesOfResult;
}

inline int64_t sum_size(DType dtype) { return dtype == DType::f64 ? 8 : 4; }

// On CUDA ranges of rows summed apart, where the kernel for few results a row takes the product
// dyᵀ x of dy [rows, out] and x [rows, in].
inline int64_t workspace_narrow_dw(int64_t rows, int64_t out, int64_t in, DType dtype) {
  return out > kNarrow ? 0 : row_chunks(rows) * out * checked_mul(in + 1, sum_size(dtype));
}

// On the CPU the operands and the product in fp32, where they are stored in 16 bits.
inline int64_t workspace_product(const Graph& g, NodeId n, DeviceKind device) {
  if (device == DeviceKind::cuda) {
    return workspace_split(g, n);
  }
  const DType dtype = g.dtype(g.in(n, 0));
  if (dtype != DType::bf16 && dtype != DType::f16) {
    return 0;
  }
  const int64_t elements =
      g.shape(g.in(n, 0)).numel() + g.shape(g.in(n, 1)).numel() + g.shape(g.output(n, 0)).numel();
  return checked_mul(elements, int64_t{sizeof(float)});
}

}  // namespace lithe
