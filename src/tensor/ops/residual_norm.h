// Dropout, residual and layer norm in one op, as between the sublayers of every transformer:
// sum = residual + dropout(y), normed = layer_norm(sum). One pass over memory each way; backward
// keeps sum and 8 bytes a row, the mask is drawn again.
#pragma once

#include "tensor/ops/dropout.h"

namespace lithe {

struct ResidualNormAttrs {
  double eps = 1e-12;
  DropoutAttrs dropout = {};  // p == 0: none, and no rng
};
// Which gradients are asked for; outputs come in this order. One of sum and y is among them.
struct ResidualNormGradAttrs {
  DropoutAttrs dropout = {};
  bool sum = false;  // of sum: the residual's and, without dropout, y's
  bool y = false;    // with dropout
  bool gamma = false;
  bool beta = false;
  // The sum over rows of y's gradient as stored, which is that of sum where y is not asked for: the
  // gradient of the bias [H] that was added to y last.
  bool bias = false;
};

// Which output is the gradient of y; the bias's, where there is one, is the last.
inline int residual_norm_dy_output(const ResidualNormGradAttrs& attrs) {
  return attrs.sum && attrs.y ? 1 : 0;
}

struct ResidualNormOut {
  ValueId normed = kNoValue;
  ValueId sum = kNoValue;
};

// y and residual [..., H], gamma and beta [H]; rng is an int64 [2] input: (seed, step). sum is
// rounded to the dtype before it is normalised, so that normed is layer_norm's of what is stored.
// Throws ShapeError.
ResidualNormOut residual_norm(Graph& graph, ValueId y, ValueId residual, ValueId gamma,
                              ValueId beta, const ResidualNormAttrs& attrs, ValueId rng = kNoValue);

// Operands: forward (y, residual, gamma, beta, rng?) -> (normed, sum, mean, rstd); gradient
// (dnormed, sum, mean, rstd, gamma, dsum?, rng?) -> those of ResidualNormGradAttrs that are asked
// for. dsum is what arrives at sum from its other readers. With neither dsum nor dropout it is
// layer norm's gradient for x and the parameters at once. The bias is asked for where y comes
// straight from a linear layer with one, and has no other reader.
extern const OpDef residual_norm_op, residual_norm_grad_op;

void residual_norm_cpu(const KernelArgs& args);
void residual_norm_grad_cpu(const KernelArgs& args);

}  // namespace lithe
