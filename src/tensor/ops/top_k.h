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

// NaN counts as largest. The gradient scatters to the chosen elements.
TopKOut top_k(Graph& graph, ValueId x, const TopKAttrs& attrs);

extern const OpDef top_k_op, top_k_grad_op;

}  // namespace lithe
