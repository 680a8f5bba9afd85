// What the shape rules and costs of attention's gradient and of its form from codes share.
#pragma once

#include "tensor/ops/attention.h"

namespace lithe {

// Shapes of q, k and v, inputs 0 to 2, mask and rng.
void expect_attention_shapes(InferContext& c, const AttentionAttrs& attrs, int mask, int rng);
// attention_grad's inputs from `out` on; declares the gradients that are asked for.
void expect_attention_grad(InferContext& c, const AttentionGradAttrs& attrs, DType dtype);

double attention_grad_flops(const AttentionGradAttrs& attrs, const Shape& q, const Shape& k);
// In bytes; `has_out`: attention's output is an input.
int64_t attention_grad_workspace(const AttentionGradAttrs& attrs, const Shape& q, const Shape& k,
                                 DType dtype, bool has_out, DeviceKind device);

}  // namespace lithe
