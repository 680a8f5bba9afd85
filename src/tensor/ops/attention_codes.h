// Attention that codes its operands for backward on the way, and its gradient from the codes,
// without full-size copies of the operands (SlimFit, arXiv 2305.18513).
#pragma once

#include "tensor/ops/attention.h"
#include "tensor/ops/saved_code.h"

namespace lithe {

// (q, k, v, key_mask?, rng?) -> (out, log-sum-exp, codes and scales of q, those of k, those of v).
// Codes are as below. Definition: attention, quantize_encode of each.
struct AttentionCodesAttrs {
  AttentionAttrs attention = {};
  SavedCode code = {};
};
inline constexpr int kAttentionCodes = 2;  // the output that is the first operand's codes

// (codes of q, k and v, out?, log-sum-exp, dout, key_mask?, rng?, scales of q, k and v) -> as
// attention_grad. Codes are quantized, all three alike, groups as is_in_lanes() wants.
// Definition: quantize_decode of each in dout's type, attention_grad.
struct AttentionCodesGradAttrs {
  AttentionGradAttrs grad = {};
  SavedCode code = {};
};

extern const OpDef attention_codes_op, attention_codes_grad_op;

// Whether CUDA's kernels of the forward pass, or of the backward pass, make or take codes of
// operands of this type and shape themselves; others are coded by kernels of their own, or decoded
// ahead, into the workspace.
bool is_attended_in_codes(const SavedCode& code, DType dtype, const Shape& q, double scale);
bool is_differentiated_in_codes(const SavedCode& code, DType dtype, const Shape& q, double scale);

void attention_codes_cpu(const KernelArgs& args);
void attention_codes_grad_cpu(const KernelArgs& args);

}  // namespace lithe
