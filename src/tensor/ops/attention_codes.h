// Attention's gradient from codes of its operands, without full-size copies of them (SlimFit,
// arXiv 2305.18513).
#pragma once

#include "tensor/ops/attention.h"
#include "tensor/ops/saved_code.h"

namespace lithe {

// (codes of q, k and v, out?, log-sum-exp, dout, key_mask?, rng?, scales of q, k and v) -> as
// attention_grad. Codes are quantized, all three alike, groups as is_in_lanes() wants.
// Definition: quantize_decode of each in dout's type, attention_grad.
struct AttentionCodesGradAttrs {
  AttentionGradAttrs grad = {};
  SavedCode code = {};
};

extern const OpDef attention_codes_grad_op;

// Whether CUDA's kernels take codes of operands of this type and shape themselves: those of fp32,
// for head dims up to 64. Others are decoded ahead, into the workspace.
bool is_differentiated_in_codes(const SavedCode& code, DType dtype, const Shape& q, double scale);

void attention_codes_grad_cpu(const KernelArgs& args);

}  // namespace lithe
