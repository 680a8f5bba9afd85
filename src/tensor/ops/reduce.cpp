#include "tensor/ops/reduce.h"

#include "tensor/ops/elementwise.h"
#include "tensor/ops/layout.h"

namespace lithe {
namespace {

bool reduces(const ReduceAttrs& attrs, int axis) { return ((attrs.axes >> axis) & 1) != 0; }

// The result's shape; with `keep` reduced dimensions stay as 1.
Shape reduced_shape(const Shape& x, const ReduceAttrs& attrs, bool keep) {
  Shape out;
  for (int d = 0; d < x.rank(); ++d) {
    if (!reduces(attrs, d)) {
      out.push_back(x[d]);
    } else if (keep) {
      out.push_back(1);
    }
  }
  return out;
}

// How many elements one result is made of.
int64_t reduced_count(const Shape& x, const ReduceAttrs& attrs) {
  int64_t n = 1;
  for (int d = 0; d < x.rank(); ++d) {
    n *= reduces(attrs, d) ? x[d] : 1;
  }
  return n;
}

void infer_reduce(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  const auto attrs = c.attr<ReduceAttrs>();
  if ((attrs.axes >> c.shape(0).rank()) != 0) {
    c.fail("an axis lies beyond the {} dimensions of {}", c.shape(0).rank(), c.shape(0));
  }
  if (attrs.kind == Reduction::max && reduced_count(c.shape(0), attrs) == 0) {
    c.fail("there is no maximum over zero elements of {}; reduce other axes", c.shape(0));
  }
  c.output(c.dtype(0), reduced_shape(c.shape(0), attrs, attrs.keep_dims));
}

void infer_max_grad(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(1);
  c.expect_same_dtype(0, 1);
  const auto attrs = c.attr<ReduceAttrs>();
  c.expect_shape(0, reduced_shape(c.shape(1), attrs, attrs.keep_dims), "the result's gradient");
  c.output(c.dtype(1), c.shape(1));
}

void infer_broadcast(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  const Shape to = c.attr<BroadcastAttrs>().shape;
  if (broadcast(c.shape(0), to, "broadcast_to") != to) {
    c.fail("{} does not broadcast to {}", c.shape(0), to);
  }
  c.output(c.dtype(0), to);
}

void grad_reduce(GradContext& c) {
  if (!c.wants(0)) {
    return;
  }
  const auto attrs = c.attr<ReduceAttrs>();
  const Shape x = c.shape(0);
  if (attrs.kind == Reduction::max) {
    c.set(0, c.graph.emit(reduce_max_grad_op, {c.dout(), c.in(0)}, attrs));
    return;
  }
  ValueId dy = reshape(c.graph, c.dout(), reduced_shape(x, attrs, true));
  if (const int64_t n = reduced_count(x, attrs); attrs.kind == Reduction::mean && n > 0) {
    dy = scale(c.graph, dy, 1.0 / static_cast<double>(n));
  }
  c.set(0, broadcast_to(c.graph, dy, x));
}

void grad_broadcast(GradContext& c) {
  if (c.wants(0)) {
    c.set(0, sum_to(c.graph, c.dout(), c.shape(0)));
  }
}

double flops_reduce(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.in(n, 0)).numel());
}

double flops_none(const Graph&, NodeId) { return 0; }

int64_t workspace_reduce(const Graph& g, NodeId n, DeviceKind device) {
  const ValueId x = g.in(n, 0);
  return device == DeviceKind::cpu
             ? reduce_cpu_workspace(g.shape(x), g.dtype(x), g.attr<ReduceAttrs>(n))
             : 0;
}

constexpr OpDef reduction(std::string_view name) {
  return {.name = name,
          .infer = infer_reduce,
          .grad = grad_reduce,
          .flops = flops_reduce,
          .workspace = workspace_reduce,
          .cpu = reduce_cpu};
}

ValueId reduce(Graph& graph, const OpDef& op, Reduction kind, ValueId x,
               std::initializer_list<int> axes, bool keep_dims) {
  const int rank = graph.shape(x).rank();
  ReduceAttrs attrs{kind, 0, keep_dims};
  for (const int axis : axes) {
    const int a = axis < 0 ? axis + rank : axis;
    if (a < 0 || a >= rank) {
      throw ShapeError(op.name, "axis {} of shape {}; give -{} to {}", axis, graph.shape(x), rank,
                       rank - 1);
    }
    attrs.axes = static_cast<uint8_t>(attrs.axes | (1u << a));
  }
  if (axes.size() == 0) {
    attrs.axes = static_cast<uint8_t>((1u << rank) - 1);
  }
  return graph.emit(op, {x}, attrs);
}

}  // namespace

const OpDef reduce_sum_op = reduction("reduce_sum");
const OpDef reduce_mean_op = reduction("reduce_mean");
const OpDef reduce_max_op = reduction("reduce_max");
// In place over x: a result's elements are read before they are written.
const OpDef reduce_max_grad_op = {.name = "reduce_max_grad",
                                  .infer = infer_max_grad,
                                  .aliases = {{{Alias::in_place, 0, 1}}},
                                  .cpu = reduce_max_grad_cpu};
const OpDef broadcast_to_op = {.name = "broadcast_to",
                               .infer = infer_broadcast,
                               .grad = grad_broadcast,
                               .flops = flops_none,
                               .cpu = broadcast_to_cpu};

ValueId reduce_sum(Graph& g, ValueId x, std::initializer_list<int> axes, bool keep_dims) {
  return reduce(g, reduce_sum_op, Reduction::sum, x, axes, keep_dims);
}
ValueId reduce_mean(Graph& g, ValueId x, std::initializer_list<int> axes, bool keep_dims) {
  return reduce(g, reduce_mean_op, Reduction::mean, x, axes, keep_dims);
}
ValueId reduce_max(Graph& g, ValueId x, std::initializer_list<int> axes, bool keep_dims) {
  return reduce(g, reduce_max_op, Reduction::max, x, axes, keep_dims);
}

ValueId sum_to(Graph& graph, ValueId x, const Shape& shape) {
  const Shape from = graph.shape(x);
  if (from == shape) {
    return x;
  }
  if (broadcast(shape, from, "sum_to") != from) {
    throw ShapeError("sum_to", "{} was not broadcast from {}", from, shape);
  }
  const int missing = from.rank() - shape.rank();
  ReduceAttrs attrs{Reduction::sum, 0, missing == 0};
  for (int d = 0; d < from.rank(); ++d) {
    if (from[d] != 1 && (d < missing || shape[d - missing] == 1)) {
      attrs.axes = static_cast<uint8_t>(attrs.axes | (1u << d));
    }
  }
  if (attrs.axes != 0) {
    x = graph.emit(reduce_sum_op, {x}, attrs);
  }
  return reshape(graph, x, shape);
}

ValueId broadcast_to(Graph& graph, ValueId x, const Shape& shape) {
  if (graph.shape(x) == shape) {
    return x;
  }
  if (graph.shape(x).numel() == shape.numel() && shape.numel() != 0 &&
      broadcast(graph.shape(x), shape, "broadcast_to") == shape) {
    return reshape(graph, x, shape);
  }
  return graph.emit(broadcast_to_op, {x}, BroadcastAttrs{shape});
}

}  // namespace lithe
