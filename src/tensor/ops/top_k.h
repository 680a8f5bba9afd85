// The k largest elements by value or by magnitude, over the last dimension.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

struct TopKAttrs {
  int64_t k = 1;
  bool by_magnitude = false;
};
struct TopKOut {
  ValueId values = kNoValue;   // [..., k], sorted, largest first
  ValueId indices = kNoValue;  // int32 [..., k]; of equal elements the lower index comes first
};

// NaN counts as largest. The gradient scatters to the chosen elements. Rows of less than 2^31
// elements; 0 <= k <= row size.
TopKOut top_k(Graph& graph, ValueId x, const TopKAttrs& attrs);

extern const OpDef top_k_op;
// dx [..., size] from (dvalues, indices); attributes: TopKGradAttrs.
extern const OpDef top_k_grad_op;

struct TopKGradAttrs {
  int64_t size = 0;  // of the last dimension of x
};

void top_k_cpu(const KernelArgs& args);
void top_k_grad_cpu(const KernelArgs& args);

}  // namespace lithe
