// Gradients of linear layers of one input (linear_stack) whose dys lie packed by row, as attention
// writes those of query, key and value: dy [..., count * out] = dy_1 | .. | dy_count. What takes a
// product a layer takes one for all, which reads dy once and rounds once.
#pragma once

#include <bit>
#include <span>

#include "tensor/graph/gradient.h"

namespace lithe {

struct LinearPackedDxAttrs {
  int count = 1;
};

// dx [..., in] = sum of dy_i W_i + addend, of weights [out, in]; the result takes the addend's
// place when that dies here. On CUDA one product where the weights lie one behind the other in
// memory, else one a layer, which adds to the one before. Definition: slice, matmul.
ValueId linear_packed_dx(Graph& graph, ValueId dy, std::span<const ValueId> weights,
                         ValueId addend = kNoValue);

struct LinearPackedDwAttrs {
  int count = 1;
  uint32_t weights = 0;  // bit i: dW_i is wanted

  bool wants(int layer) const { return (weights >> layer & 1) != 0; }
  int wanted() const { return std::popcount(weights); }
};

// linear_packed_dx_op: (dy, addend?, W_1 .. W_count) to dx. linear_packed_dw_op: (dy, x [..., in])
// to the dW_i = dy_iᵀ x [out, in] that its attributes ask for. On CUDA one product for neighbouring
// layers whose dWs lie one behind the other. Definition: slice, matmul.
extern const OpDef linear_packed_dx_op, linear_packed_dw_op;

// The gradient rule of a linear_stack of three layers whose outputs go to attention through
// reshapes and nowhere else: attention's gradients are packed, and those of the biases come with
// them. False, and nothing done, of others.
bool set_packed_gradients(GradContext& c);

void linear_packed_dx_cpu(const KernelArgs& args);
void linear_packed_dw_cpu(const KernelArgs& args);

}  // namespace lithe
