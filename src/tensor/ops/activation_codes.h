// Activations that code what backward keeps of them on their way (SlimFit, arXiv 2305.18513): one
// pass over x forward, and codes instead of the kept tensor backward.
#pragma once

#include "tensor/ops/activation.h"
#include "tensor/ops/saved_code.h"

namespace lithe {

// Forward x -> (y, x's codes[, scales], y's codes[, scales]), as far as each is asked for; one at
// least. Definition: the activation, fixed_point_encode, quantize_encode.
struct ActivationCodesAttrs {
  Activation kind = Activation::none;
  SavedCode x = {};
  SavedCode y = {};
};
// Backward (dy, codes[, scales]) -> dx as activation_grad, from the code of what it keeps; where
// column_sum is set also the sum of dx over all leading dimensions. Definition: fixed_point_decode
// or quantize_decode, activation_grad. Groups are as is_in_lanes() wants them.
struct ActivationCodesGradAttrs {
  ActivationAttrs grad = {};
  SavedCode code = {};
};

extern const OpDef activation_codes_op, activation_codes_grad_op;

void activation_codes_cpu(const KernelArgs& args);
void activation_codes_grad_cpu(const KernelArgs& args);

}  // namespace lithe
