#include "tensor/ops/top_k.h"

namespace lithe {
namespace {

Shape with_last(Shape shape, int64_t size) {
  shape[shape.rank() - 1] = size;
  return shape;
}

void infer(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  const Shape& x = c.shape(0);
  const int64_t k = c.attr<TopKAttrs>().k;
  if (x.rank() < 1 || x.back() > INT32_MAX) {
    c.fail("x has shape {}; rows of at most {} elements are wanted", x, INT32_MAX);
  }
  if (k < 0 || k > x.back()) {
    c.fail("k is {} for rows of {} elements in {}; give 0 to {}", k, x.back(), x, x.back());
  }
  c.output(c.dtype(0), with_last(x, k));
  c.output(DType::i32, with_last(x, k));
}

void infer_grad(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  if (c.dtype(1) != DType::i32) {
    c.fail("the indices are {}; int32 is wanted", dtype_name(c.dtype(1)));
  }
  c.expect_shape(1, c.shape(0), "the indices");
  const int64_t size = c.attr<TopKGradAttrs>().size;
  if (c.shape(0).rank() < 1 || size < c.shape(0).back()) {
    c.fail("gradients of shape {} for rows of {} elements", c.shape(0), size);
  }
  c.output(c.dtype(0), with_last(c.shape(0), size));
}

void grad(GradContext& c) {
  if (c.wants(0)) {
    c.set(0, c.graph.emit(top_k_grad_op, {c.dout(), c.out(1)}, TopKGradAttrs{c.shape(0).back()}));
  }
}

double flops(const Graph& g, NodeId n) { return static_cast<double>(g.shape(g.in(n, 0)).numel()); }

}  // namespace

const OpDef top_k_op = {
    .name = "top_k", .infer = infer, .grad = grad, .flops = flops, .cpu = top_k_cpu};
const OpDef top_k_grad_op = {
    .name = "top_k_grad", .infer = infer_grad, .flops = flops, .cpu = top_k_grad_cpu};

TopKOut top_k(Graph& graph, ValueId x, const TopKAttrs& attrs) {
  const NodeId n = graph.emit_node(top_k_op, std::span(&x, 1), attrs);
  return {graph.output(n, 0), graph.output(n, 1)};
}

}  // namespace lithe
