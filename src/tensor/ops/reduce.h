// Reductions over any set of dimensions; floating types, sums in fp32 (fp64 for fp64), in a fixed order.
#pragma once

#include <initializer_list>

#include "tensor/graph/gradient.h"

namespace lithe {

enum class Reduction : uint8_t { sum, mean, max };
struct ReduceAttrs {
  Reduction kind = Reduction::sum;
  uint8_t axes = 0;  // bit i: dimension i is reduced
  bool keep_dims = false;
};

// Negative axes count from the end; no axes: all. The gradient of max goes to the first maximum.
ValueId reduce_sum(Graph& graph, ValueId x, std::initializer_list<int> axes, bool keep_dims = false);
ValueId reduce_mean(Graph& graph, ValueId x, std::initializer_list<int> axes, bool keep_dims = false);
ValueId reduce_max(Graph& graph, ValueId x, std::initializer_list<int> axes, bool keep_dims = false);

// Sums x down to `shape`, from which it was broadcast; x itself when the shapes agree.
ValueId sum_to(Graph& graph, ValueId x, const Shape& shape);
// Repeats x to `shape` by broadcasting; x itself when the shapes agree.
ValueId broadcast_to(Graph& graph, ValueId x, const Shape& shape);

}  // namespace lithe
