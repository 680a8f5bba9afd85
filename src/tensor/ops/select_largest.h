// The k elements of largest magnitude of a whole tensor, in the tensor's order: what SlimFit (arXiv
// 2305.18513) keeps of a frozen norm. top_k.h chooses row by row and sorts.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

struct SelectLargestAttrs {
  int64_t k = 1;
};
struct SelectLargestOut {
  ValueId values = kNoValue;   // [k]
  ValueId indices = kNoValue;  // int32 [k], ascending, into the flattened tensor
};

// Of elements of equal magnitude those of lower index are chosen; NaN counts as largest. x has less
// than 2^31 elements, k is 0 to as many. top_k_grad_op brings values back in place, among zeros. No
// gradient: it stands between forward and backward.
SelectLargestOut select_largest(Graph& graph, ValueId x, const SelectLargestAttrs& attrs);

extern const OpDef select_largest_op;

void select_largest_cpu(const KernelArgs& args);

// On CUDA the tensor is cut into so many ranges at most, and counted by digits of so many bits.
inline constexpr int kSelectRanges = 1024;
inline constexpr int kSelectDigitBits = 11;

}  // namespace lithe
