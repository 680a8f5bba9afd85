// How attention_codes_grad shares its workspace where it decodes its operands ahead: q, k and v
// first, what attention_grad needs behind them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "tensor/core/tensor.h"
#include "tensor/ops/attention_codes.h"

namespace lithe {

// In whole lines, as a planned tensor is.
inline int64_t decoded_bytes(DType dtype, const Shape& x) {
  return (byte_size(dtype, x) + 255) / 256 * 256;
}

// The call of attention_grad that follows.
struct DecodedAttention {
  explicit DecodedAttention(const KernelArgs& args)
      : attrs(args.attr<AttentionCodesGradAttrs>().grad), call(args) {
    std::copy_n(args.in.begin(), in.size(), in.begin());
    const DType dtype = args.in[5].dtype;
    int64_t at = 0;
    for (size_t i = 0; i < 3; ++i) {
      in[i].data = static_cast<std::byte*>(args.workspace) + at;
      in[i].dtype = dtype;
      at += decoded_bytes(dtype, in[i].shape);
    }
    call.in = in;
    call.attrs = &attrs;
    call.workspace = static_cast<std::byte*>(args.workspace) + at;
    call.workspace_bytes = args.workspace_bytes - at;
  }
  DecodedAttention(const DecodedAttention&) = delete;  // the call points into it
  DecodedAttention& operator=(const DecodedAttention&) = delete;

  Attrs attrs;
  std::array<TensorRef, 8> in;
  KernelArgs call;
};

}  // namespace lithe
