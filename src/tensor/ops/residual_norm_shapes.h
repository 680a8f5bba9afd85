// What the shape rules of residual_norm and of its form with codes have in common.
#pragma once

#include "tensor/ops/norm_shapes.h"
#include "tensor/ops/residual_norm.h"

namespace lithe {

// Operands; the caller declares the outputs.
void expect_residual_norm(InferContext& c, const ResidualNormAttrs& attrs);
// Operands but the kept sum, input 1; declares the outputs that are asked for.
void expect_residual_norm_grad(InferContext& c, const ResidualNormGradAttrs& attrs);

// FLOPs an element; `joins`: there is a dsum.
int residual_norm_grad_flops(const ResidualNormGradAttrs& attrs, bool joins);
// In bytes.
int64_t residual_norm_grad_workspace(const ResidualNormGradAttrs& attrs, const Shape& x,
                                     DType dtype, DeviceKind device);

}  // namespace lithe
