// Matrix products on BLAS. fp64 and fp32 natively; bf16 and fp16 operands are widened into planned
// workspace and the product rounded once.
#pragma once

#include "tensor/graph/gradient.h"
#include "tensor/ops/activation.h"

namespace lithe {

struct MatmulAttrs {
  bool transpose_a = false;
  bool transpose_b = false;
  double alpha = 1;
};

// alpha * op(a) op(b) over the last two dimensions. Leading dimensions are batches: equal in both,
// or absent (rank 2) in one of them.
ValueId matmul(Graph& graph, ValueId a, ValueId b, const MatmulAttrs& attrs = {});

struct LinearAttrs {
  Activation activation = Activation::none;
};
struct LinearOut {
  ValueId y = kNoValue;
  // Only where an activation is fused; backward keeps it, for relu, tanh and sigmoid y instead.
  ValueId pre_activation = kNoValue;
};

// y = f(x Wᵀ + b), x [..., in], weight [out, in] as Hugging Face stores it, bias [out] or kNoValue.
// Definition: matmul, add, activation. Gradients: dx = dy W, dW = dyᵀ x, db = sum of dy: with W
// frozen nobody reads x, which is what freezing saves (SlimFit, arXiv 2305.18513).
LinearOut linear(Graph& graph, ValueId x, ValueId weight, ValueId bias,
                 Activation fused = Activation::none);

extern const OpDef matmul_op, linear_op;
// db = sum of dy [..., out] over all leading dimensions.
extern const OpDef bias_grad_op;

void matmul_cpu(const KernelArgs& args);
void linear_cpu(const KernelArgs& args);
void bias_grad_cpu(const KernelArgs& args);

}  // namespace lithe
