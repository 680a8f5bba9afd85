// How activation_codes_grad shares its workspace: sums by column first, on the CPU a decoded range
// of elements behind them.
#pragma once

#include "tensor/ops/activation_codes.h"
#include "tensor/ops/column_sum.h"

namespace lithe {

inline constexpr int64_t kDecodedAtOnce = int64_t{1} << 15;  // elements

// A multiple of the widest element.
inline int64_t column_sum_bytes(const ActivationCodesGradAttrs& attrs, const Shape& dy,
                                DType dtype) {
  if (!attrs.grad.column_sum) {
    return 0;
  }
  const int64_t size = dtype == DType::f64 ? 8 : 4;
  const int64_t bytes = row_chunks(dy.product(0, dy.rank() - 1)) * dy.back() * size;
  return (bytes + 7) / 8 * 8;
}

}  // namespace lithe
