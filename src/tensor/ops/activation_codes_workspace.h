// How activation_codes_grad shares its workspace: sums by column first, on the CPU a decoded range
// of elements behind them. And what codes cost.
#pragma once

#include <algorithm>

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

inline int64_t activation_codes_grad_bytes(const ActivationCodesGradAttrs& attrs, const Shape& dy,
                                           DType dtype, DeviceKind device) {
  const int64_t decoded = std::min(dy.numel(), kDecodedAtOnce) * dtype_bits(dtype) / 8;
  return column_sum_bytes(attrs, dy, dtype) + (device == DeviceKind::cpu ? decoded : 0);
}

// FLOPs an element: one of the activation, and of codes as many as their own ops.
inline int activation_codes_flops(const ActivationCodesAttrs& attrs) {
  const auto of = [](const SavedCode& code) {
    return code.kind == SavedCode::Kind::none ? 0 : 3 + code.parts();
  };
  return 1 + of(attrs.x) + of(attrs.y);
}

}  // namespace lithe
