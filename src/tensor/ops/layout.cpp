#include "tensor/ops/layout.h"

#include <algorithm>

namespace lithe {
namespace {

void expect_whole_bytes(const InferContext& c, int i) {
  if (c.dtype(i) == DType::i4) {
    c.fail("input {} is packed int4 {}; unpack it first", i, c.shape(i));
  }
}

Shape with_axis(Shape shape, int axis, int64_t size) {
  shape[axis] = size;
  return shape;
}

void infer_reshape(InferContext& c) {
  c.expect_inputs(1);
  const Shape to = c.attr<ReshapeAttrs>().shape;
  if (to.numel() != c.shape(0).numel()) {
    c.fail("{} has {} elements, {} has {}; both must have as many", c.shape(0), c.shape(0).numel(),
           to, to.numel());
  }
  c.output(c.dtype(0), to);
}

void infer_transpose(InferContext& c) {
  c.expect_inputs(1);
  expect_whole_bytes(c, 0);
  const auto attrs = c.attr<TransposeAttrs>();
  const Shape x = c.shape(0);
  if (attrs.rank != x.rank()) {
    c.fail("an order of {} dimensions for shape {}; name each dimension once",
           static_cast<int>(attrs.rank), x);
  }
  Shape out;
  unsigned seen = 0;
  for (int d = 0; d < x.rank(); ++d) {
    const int from = attrs.order[static_cast<size_t>(d)];
    if (from < 0 || from >= x.rank() || ((seen >> from) & 1u) != 0) {
      c.fail("the order names dimension {} of shape {} at place {}; name each dimension once", from,
             x, d);
    }
    seen |= 1u << from;
    out.push_back(x[from]);
  }
  c.output(c.dtype(0), out);
}

void infer_slice(InferContext& c) {
  c.expect_inputs(1);
  expect_whole_bytes(c, 0);
  const auto a = c.attr<SliceAttrs>();
  const Shape x = c.shape(0);
  if (a.axis < 0 || a.axis >= x.rank()) {
    c.fail("axis {} of shape {}; give -{} to {}", a.axis, x, x.rank(), x.rank() - 1);
  }
  if (a.begin < 0 || a.begin > a.end || a.end > x[a.axis]) {
    c.fail("elements {} to {} of axis {} of {}; give 0 <= begin <= end <= {}", a.begin, a.end,
           a.axis, x, x[a.axis]);
  }
  c.output(c.dtype(0), with_axis(x, a.axis, a.end - a.begin));
}

void infer_slice_grad(InferContext& c) {
  c.expect_inputs(1);
  const auto a = c.attr<SliceAttrs>();
  const Shape dy = c.shape(0);
  if (a.axis < 0 || a.axis >= dy.rank() || a.begin < 0 || a.end > a.full ||
      dy[a.axis] != a.end - a.begin) {
    c.fail("a gradient of shape {} for elements {} to {} of {} on axis {}", dy, a.begin, a.end,
           a.full, a.axis);
  }
  c.output(c.dtype(0), with_axis(dy, a.axis, a.full));
}

void infer_concat(InferContext& c) {
  c.expect_inputs(1, INT16_MAX);
  expect_whole_bytes(c, 0);
  const int axis = c.attr<ConcatAttrs>().axis;
  Shape out = c.shape(0);
  if (axis < 0 || axis >= out.rank()) {
    c.fail("axis {} of shape {}; give -{} to {}", axis, out, out.rank(), out.rank() - 1);
  }
  for (int i = 1; i < c.input_count(); ++i) {
    c.expect_same_dtype(0, i);
    const Shape part = c.shape(i);
    if (part.rank() != out.rank() || with_axis(part, axis, out[axis]) != out) {
      c.fail("part {} has shape {}, the parts before {}; they may differ in axis {} only", i, part,
             out, axis);
    }
    out[axis] = checked_add(out[axis], part[axis]);
  }
  c.output(c.dtype(0), out);
}

void grad_reshape(GradContext& c) {
  if (c.wants(0)) {
    c.set(0, reshape(c.graph, c.dout(), c.shape(0)));
  }
}

void grad_transpose(GradContext& c) {
  if (!c.wants(0)) {
    return;
  }
  const auto attrs = c.attr<TransposeAttrs>();
  TransposeAttrs inverse;
  inverse.rank = attrs.rank;
  for (size_t d = 0; d < inverse.order.size(); ++d) {
    const auto* place = std::find(attrs.order.begin(), attrs.order.end(), static_cast<int8_t>(d));
    inverse.order[d] = static_cast<int8_t>(place - attrs.order.begin());
  }
  c.set(0, c.graph.emit(transpose_op, {c.dout()}, inverse));
}

void grad_slice(GradContext& c) {
  if (c.wants(0)) {
    auto attrs = c.attr<SliceAttrs>();
    attrs.full = c.shape(0)[attrs.axis];
    c.set(0, c.graph.emit(slice_grad_op, {c.dout()}, attrs));
  }
}

void grad_slice_grad(GradContext& c) {
  if (c.wants(0)) {
    const auto a = c.attr<SliceAttrs>();
    c.set(0, slice(c.graph, c.dout(), a.axis, a.begin, a.end));
  }
}

void grad_concat(GradContext& c) {
  const int axis = c.attr<ConcatAttrs>().axis;
  int64_t begin = 0;
  for (int i = 0; i < c.graph.node(c.node).input_count; ++i) {
    const int64_t end = begin + c.shape(i)[axis];
    if (c.wants(i)) {
      c.set(i, slice(c.graph, c.dout(), axis, begin, end));
    }
    begin = end;
  }
}

double flops_none(const Graph&, NodeId) { return 0; }

}  // namespace

const OpDef reshape_op = {.name = "reshape",
                          .infer = infer_reshape,
                          .grad = grad_reshape,
                          .flops = flops_none,
                          .aliases = {{{Alias::view, 0, 0}}},
                          .cpu = reshape_cpu};
const OpDef transpose_op = {.name = "transpose",
                            .infer = infer_transpose,
                            .grad = grad_transpose,
                            .flops = flops_none,
                            .cpu = transpose_cpu};
const OpDef slice_op = {.name = "slice",
                        .infer = infer_slice,
                        .grad = grad_slice,
                        .flops = flops_none,
                        .cpu = slice_cpu};
const OpDef slice_grad_op = {.name = "slice_grad",
                             .infer = infer_slice_grad,
                             .grad = grad_slice_grad,
                             .flops = flops_none,
                             .cpu = slice_grad_cpu};
const OpDef concat_op = {.name = "concat",
                         .infer = infer_concat,
                         .grad = grad_concat,
                         .flops = flops_none,
                         .cpu = concat_cpu};

ValueId reshape(Graph& graph, ValueId x, const Shape& shape) {
  return graph.shape(x) == shape ? x : graph.emit(reshape_op, {x}, ReshapeAttrs{shape});
}

ValueId transpose(Graph& graph, ValueId x, std::initializer_list<int> order) {
  const Shape from = graph.shape(x);
  if (order.size() > Shape::kMaxRank) {
    throw ShapeError("transpose", "an order of {} dimensions for shape {}; name each once",
                     order.size(), from);
  }
  TransposeAttrs attrs;
  Shape to;
  bool moves = false;  // whether dimensions of more than one element change places
  int previous = -1;
  for (const int d : order) {
    attrs.order[static_cast<size_t>(attrs.rank++)] = static_cast<int8_t>(d);
    if (d >= 0 && d < from.rank()) {
      to.push_back(from[d]);
      if (from[d] != 1) {
        moves = moves || d < previous;
        previous = d;
      }
    }
  }
  const Attrs packed(attrs);
  InferContext check(graph, transpose_op, std::span(&x, 1), packed);
  infer_transpose(check);
  return moves ? graph.emit(transpose_op, {x}, packed) : reshape(graph, x, to);
}

ValueId slice(Graph& graph, ValueId x, int axis, int64_t begin, int64_t end) {
  const Shape& shape = graph.shape(x);
  SliceAttrs attrs{axis < 0 ? axis + shape.rank() : axis, begin, end, 0};
  if (attrs.axis >= 0 && attrs.axis < shape.rank()) {
    attrs.full = shape[attrs.axis];
    if (begin == 0 && end == attrs.full) {
      return x;
    }
  }
  return graph.emit(slice_op, {x}, attrs);
}

ValueId concat(Graph& graph, std::span<const ValueId> parts, int axis) {
  if (parts.empty()) {
    throw ShapeError("concat", "0 parts given; give at least 1");
  }
  const int rank = graph.shape(parts[0]).rank();
  const ConcatAttrs attrs{axis < 0 ? axis + rank : axis};
  return parts.size() == 1 ? parts[0] : graph.output(graph.emit_node(concat_op, parts, attrs), 0);
}

}  // namespace lithe
