// Softmax over the last dimension, with the scale and masks of attention scores folded in.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

struct SoftmaxAttrs {
  double scale = 1;     // applied to x first
  bool causal = false;  // x [..., T, S]: position s is visible to t when s <= t + (S - T)
};

// p = softmax(scale * x + mask). `key_mask` (kNoValue: all visible) is boolean [B, S] for x [B,
// ..., S], true where a key is visible. Rows without any visible key give zeros. Backward keeps p.
ValueId softmax(Graph& graph, ValueId x, const SoftmaxAttrs& attrs = {},
                ValueId key_mask = kNoValue);

extern const OpDef softmax_op;
// dx = scale p (dp - sum(dp p)) from (dp, p); attributes as above.
extern const OpDef softmax_grad_op;

void softmax_cpu(const KernelArgs& args);
void softmax_grad_cpu(const KernelArgs& args);

}  // namespace lithe
