// Ops that move or rename data. Reshape is a view and costs nothing; the others copy.
#pragma once

#include <initializer_list>

#include "tensor/graph/gradient.h"

namespace lithe {

ValueId reshape(Graph& graph, ValueId x, const Shape& shape);
// out[i0, i1, ...] with out.shape[d] = x.shape[order[d]], as NumPy's transpose.
ValueId transpose(Graph& graph, ValueId x, std::initializer_list<int> order);
// Elements [begin, end) along an axis.
ValueId slice(Graph& graph, ValueId x, int axis, int64_t begin, int64_t end);
ValueId concat(Graph& graph, std::span<const ValueId> parts, int axis);

extern const OpDef reshape_op, transpose_op, slice_op, slice_grad_op, concat_op;

}  // namespace lithe
