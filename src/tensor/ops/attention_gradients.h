// Where the kernels of attention's backward pass write.
#pragma once

#include "tensor/ops/attention.h"

namespace lithe {

// dq, dk and dv as tensors of their own, null where not wanted, or packed by token. The elements
// [b, t, head, :] of a gradient begin at (b * T + t) * row + head * D.
template <typename T>
struct AttentionGradients {
  AttentionGradients() = default;
  explicit AttentionGradients(const KernelArgs& args) {
    const auto attrs = args.attr<AttentionGradAttrs>();
    const Shape& q = args.in[0].shape;
    const Shape& k = args.in[1].shape;
    query_row = q[2] * q[3];
    key_row = k[2] * k[3];
    if (attrs.packed) {
      dq = args.out[0].as<T>();
      dk = dq + query_row;
      dv = dk + key_row;
      query_row = key_row = query_row + 2 * key_row;
      return;
    }
    size_t output = 0;
    dq = attrs.dq ? args.out[output++].as<T>() : nullptr;
    dk = attrs.dk ? args.out[output++].as<T>() : nullptr;
    dv = attrs.dv ? args.out[output++].as<T>() : nullptr;
  }

  T* dq = nullptr;
  T* dk = nullptr;
  T* dv = nullptr;
  int64_t query_row = 0;  // elements between two tokens' rows of dq
  int64_t key_row = 0;    // of dk, and of dv
};

}  // namespace lithe
