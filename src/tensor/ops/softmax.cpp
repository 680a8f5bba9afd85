#include "tensor/ops/softmax.h"

namespace lithe {
namespace {

void infer(InferContext& c) {
  c.expect_inputs(1, 2);
  c.expect_floating(0);
  const Shape& x = c.shape(0);
  const bool causal = c.attr<SoftmaxAttrs>().causal;
  const int least = causal || c.has(1) ? 2 : 1;
  if (x.rank() < least) {
    c.fail("x has shape {}; at least {} dimensions are wanted{}", x, least,
           least == 2 ? " with a mask" : "");
  }
  if (c.has(1)) {
    if (c.dtype(1) != DType::boolean) {
      c.fail("the key mask is {}; make it bool, true where a key is visible",
             dtype_name(c.dtype(1)));
    }
    c.expect_shape(1, {x[0], x.back()}, "the key mask");
  }
  c.output(c.dtype(0), x);
}

void infer_grad(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  c.expect_same_dtype(0, 1);
  c.expect_shape(1, c.shape(0), "the probabilities");
  c.output(c.dtype(0), c.shape(0));
}

void grad(GradContext& c) {
  if (c.wants(0)) {
    // Hidden positions have p = 0 and so no gradient: the mask is not read again.
    c.set(0, c.graph.emit(softmax_grad_op, {c.dout(), c.out()}, c.attr<SoftmaxAttrs>()));
  }
}

// Scale, maximum, exponential, sum and division.
double flops(const Graph& g, NodeId n) {
  return 5.0 * static_cast<double>(g.shape(g.in(n, 0)).numel());
}

}  // namespace

const OpDef softmax_op = {.name = "softmax",
                          .infer = infer,
                          .grad = grad,
                          .flops = flops,
                          .aliases = {{{Alias::in_place, 0, 0}}},
                          .cpu = softmax_cpu};
const OpDef softmax_grad_op = {.name = "softmax_grad",
                               .infer = infer_grad,
                               .flops = flops,
                               .aliases = {{{Alias::in_place, 0, 0}, {Alias::in_place, 0, 1}}},
                               .cpu = softmax_grad_cpu};

ValueId softmax(Graph& graph, ValueId x, const SoftmaxAttrs& attrs, ValueId key_mask) {
  return key_mask == kNoValue ? graph.emit(softmax_op, {x}, attrs)
                              : graph.emit(softmax_op, {x, key_mask}, attrs);
}

}  // namespace lithe
