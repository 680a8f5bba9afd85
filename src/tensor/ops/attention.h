// Scaled dot-product attention, computed in blocks of keys with a running maximum and sum, so that
// no [T, S] matrix is ever stored; backward recomputes the probabilities from the log-sum-exp.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

struct AttentionAttrs {
  double scale = 1;  // usually 1 / sqrt(D)
  bool causal = false;
  double dropout = 0;        // on the probabilities
  uint64_t dropout_key = 0;  // see dropout.h
};

// q [B, T, N, D]; k, v [B, S, K, D] with N a multiple of K (grouped heads); key_mask boolean [B, S]
// or kNoValue; rng as in dropout.h, needed when dropout > 0. Returns [B, T, N, D]. The op's second
// output is the log-sum-exp [B, N, T] in fp32 (fp64 for fp64). Dropout takes 8 random bits an
// element, row by row of the full probability tensor [B, N, T, S], as its definition does: so p is
// rounded to a multiple of 1 / 256, and what is kept scaled by the inverse of what that leaves.
// Definition: transpose to [B, N, T, D], matmul, softmax, dropout, matmul, transpose.
ValueId attention(Graph& graph, ValueId q, ValueId k, ValueId v, const AttentionAttrs& attrs,
                  ValueId key_mask = kNoValue, ValueId rng = kNoValue);

// attention_op: (q, k, v, key_mask?, rng?) -> (out, log-sum-exp). attention_grad_op: (q, k, v,
// out?, log-sum-exp, dout, key_mask?, rng?) -> those of dq, dk, dv that its attributes ask for, in
// this order. The gradient of the scores is P ∘ (dP - delta) with delta = rowsum(dout ∘ out);
// without `out`, delta = rowsum(P ∘ dP) / rowsum(P), the same where the log-sum-exp fits q and k,
// for more time. Packed, one [B, T, 3, N, D] that holds a token's dq, dk and dv side by side, as
// one product with the joined projections wants them. Packing needs all three, as many key heads as
// query heads and as many keys as queries, else ShapeError. With `bias_sums`, which are of packed
// gradients, three further outputs [N * D]: the sums of dq, dk and dv over batch and tokens, the
// gradients of the projections' biases.
extern const OpDef attention_op, attention_grad_op;
inline constexpr int kAttentionGradOutput = 3;  // the place of `out`, which may be absent

struct AttentionGradAttrs {
  AttentionAttrs forward;
  bool dq = true;
  bool dk = true;
  bool dv = true;
  bool packed = false;     // one output,
  bool bias_sums = false;  // and the sums over its rows
};

void attention_cpu(const KernelArgs& args);
void attention_grad_cpu(const KernelArgs& args);

}  // namespace lithe
