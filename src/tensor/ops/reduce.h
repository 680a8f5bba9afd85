// Reductions over any set of dimensions; floating types, sums in fp32 (fp64 for fp64), in an order
// that depends on the shape only, not on the number of threads.
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
// Over no elements the sum is 0, the mean NaN and the maximum an error; NaN is the largest of all.
ValueId reduce_sum(Graph& graph, ValueId x, std::initializer_list<int> axes,
                   bool keep_dims = false);
ValueId reduce_mean(Graph& graph, ValueId x, std::initializer_list<int> axes,
                    bool keep_dims = false);
ValueId reduce_max(Graph& graph, ValueId x, std::initializer_list<int> axes,
                   bool keep_dims = false);

// Sums x down to `shape`, from which it was broadcast; x itself when the shapes agree.
ValueId sum_to(Graph& graph, ValueId x, const Shape& shape);
// Repeats x to `shape` by broadcasting; x itself when the shapes agree.
ValueId broadcast_to(Graph& graph, ValueId x, const Shape& shape);

extern const OpDef reduce_sum_op, reduce_mean_op, reduce_max_op;
// dx from (dy, x), the attributes being those of the reduction.
extern const OpDef reduce_max_grad_op;
// Attributes: BroadcastAttrs.
extern const OpDef broadcast_to_op;

struct BroadcastAttrs {
  Shape shape;
};

void reduce_cpu(const KernelArgs& args);
void reduce_max_grad_cpu(const KernelArgs& args);
void broadcast_to_cpu(const KernelArgs& args);
// Bytes of partial results that reduce_cpu needs.
int64_t reduce_cpu_workspace(const Shape& x, DType dtype, const ReduceAttrs& attrs);

}  // namespace lithe
