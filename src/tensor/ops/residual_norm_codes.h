// residual_norm that codes its sum for backward on the way, and its gradient from the codes: the
// full-size sum is written only where forward reads on from it (SlimFit, arXiv 2305.18513).
#pragma once

#include "tensor/ops/residual_norm.h"
#include "tensor/ops/saved_code.h"

namespace lithe {

// Forward (y, residual, gamma, beta, rng?) -> (normed, mean, rstd, codes, scales[, sum]).
// Definition: residual_norm, quantize_encode. Codes are quantized, groups as is_in_lanes() wants.
struct ResidualNormCodesAttrs {
  ResidualNormAttrs norm = {};
  SavedCode code = {};
  bool sum = false;  // whether forward reads on from it
};
// Gradient (dnormed, codes, mean, rstd, gamma, dsum?, rng?, scales) -> as residual_norm_grad.
// Definition: quantize_decode, residual_norm_grad.
struct ResidualNormCodesGradAttrs {
  ResidualNormGradAttrs grad = {};
  SavedCode code = {};
};

extern const OpDef residual_norm_codes_op, residual_norm_codes_grad_op;

// Whether the kernels of every backend take rows of x in this code.
bool is_walked_in_codes(const SavedCode& code, DType dtype, const Shape& x);

void residual_norm_codes_cpu(const KernelArgs& args);
void residual_norm_codes_grad_cpu(const KernelArgs& args);

}  // namespace lithe
