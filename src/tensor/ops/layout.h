// Ops that move or rename data, of any whole-byte type. Reshape is a view and costs nothing; the
// others copy. Their gradients exist for floating types.
#pragma once

#include <array>
#include <initializer_list>

#include "tensor/graph/gradient.h"

namespace lithe {

ValueId reshape(Graph& graph, ValueId x, const Shape& shape);  // x itself when the shapes agree
// out[i0, i1, ...] with out.shape[d] = x.shape[order[d]], as NumPy's transpose. A view where only
// dimensions of size 1 move.
ValueId transpose(Graph& graph, ValueId x, std::initializer_list<int> order);
// Elements [begin, end) along an axis; a negative axis counts from the end.
ValueId slice(Graph& graph, ValueId x, int axis, int64_t begin, int64_t end);
ValueId concat(Graph& graph, std::span<const ValueId> parts, int axis);

// slice_grad is the slice's adjoint: dy between zeros, in the shape of x.
extern const OpDef reshape_op, transpose_op, slice_op, slice_grad_op, concat_op;

struct ReshapeAttrs {
  Shape shape;
};
struct TransposeAttrs {
  std::array<int8_t, Shape::kMaxRank> order{};
  int8_t rank = 0;
};
struct SliceAttrs {
  int32_t axis = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t full = 0;  // size of the whole axis; used by slice_grad
};
struct ConcatAttrs {
  int32_t axis = 0;
};

void reshape_cpu(const KernelArgs& args);  // does nothing: the output is the input's memory
void transpose_cpu(const KernelArgs& args);
void slice_cpu(const KernelArgs& args);
void slice_grad_cpu(const KernelArgs& args);
void concat_cpu(const KernelArgs& args);

}  // namespace lithe
