#include "tensor/ops/loss.h"

namespace lithe {
namespace {

DType sum_type(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

// Logits [..., C] with labels int64 [...]; returns [...].
Shape expect_rows(const InferContext& c, int logits, int labels) {
  c.expect_floating(logits);
  const Shape& x = c.shape(logits);
  if (x.rank() < 1 || x.back() < 1) {
    c.fail("logits have shape {}; [..., C] with at least one class is wanted", x);
  }
  Shape rows;
  for (int d = 0; d + 1 < x.rank(); ++d) {
    rows.push_back(x[d]);
  }
  if (c.dtype(labels) != DType::i64) {
    c.fail("labels are {}; int64 is wanted", dtype_name(c.dtype(labels)));
  }
  c.expect_shape(labels, rows, "the labels");
  return rows;
}

void expect_loss_gradient(const InferContext& c, int loss, int x) {
  c.expect_shape(loss, {}, "the loss's gradient");
  if (c.dtype(loss) != sum_type(c.dtype(x))) {
    c.fail("the loss's gradient is {}, {} wanted", dtype_name(c.dtype(loss)),
           dtype_name(sum_type(c.dtype(x))));
  }
}

void infer_cross_entropy(InferContext& c) {
  c.expect_inputs(2);
  const Shape rows = expect_rows(c, 0, 1);
  const double smoothing = c.attr<CrossEntropyAttrs>().label_smoothing;
  if (!(smoothing >= 0 && smoothing <= 1)) {
    c.fail("label smoothing is {}; give 0 to 1", smoothing);
  }
  c.output(sum_type(c.dtype(0)), {});
  c.output(sum_type(c.dtype(0)), rows);
}

void infer_cross_entropy_grad(InferContext& c) {
  c.expect_inputs(4);
  const Shape rows = expect_rows(c, 1, 2);
  expect_loss_gradient(c, 0, 1);
  c.expect_shape(3, rows, "the log-sum-exp");
  c.expect_same_dtype(0, 3);
  c.output(c.dtype(1), c.shape(1));
}

void infer_mse(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  c.expect_same_dtype(0, 1);
  c.expect_shape(1, c.shape(0), "the target");
  c.output(sum_type(c.dtype(0)), {});
}

void infer_mse_grad(InferContext& c) {
  c.expect_inputs(3);
  c.expect_floating(1);
  c.expect_same_dtype(1, 2);
  c.expect_shape(2, c.shape(1), "the target");
  expect_loss_gradient(c, 0, 1);
  c.output(c.dtype(1), c.shape(1));
}

void infer_count(InferContext& c) {
  c.expect_inputs(2);
  expect_rows(c, 0, 1);
  c.output(DType::i64, {});
}

void grad_cross_entropy(GradContext& c) {
  if (c.dout(1) != kNoValue) {
    throw GraphError(c.graph.node_name(c.node),
                     "the log-sum-exp output has no gradient; differentiate the loss");
  }
  if (c.wants(0)) {
    c.set(0, c.graph.emit(cross_entropy_grad_op, {c.dout(), c.in(0), c.in(1), c.out(1)},
                          c.attr<CrossEntropyAttrs>()));
  }
}

void grad_mse(GradContext& c) {
  if (c.wants(1)) {
    throw GraphError(c.graph.node_name(c.node),
                     "the target has no gradient; give the trained side as x");
  }
  if (c.wants(0)) {
    c.set(0, c.graph.emit(mse_grad_op, {c.dout(), c.in(0), c.in(1)}));
  }
}

// `per_element` FLOPs for each element of input `i`.
template <int kInput, int kPerElement>
double flops(const Graph& g, NodeId n) {
  return kPerElement * static_cast<double>(g.shape(g.in(n, kInput)).numel());
}

int64_t workspace_cross_entropy(const Graph& g, NodeId n, DeviceKind) {
  // One loss a row, summed in order afterwards.
  return g.bytes(g.output(n, 1));
}

int64_t workspace_mse(const Graph& g, NodeId n, DeviceKind) {
  const int64_t chunks = (g.shape(g.in(n, 0)).numel() + kMseChunk - 1) / kMseChunk;
  return chunks * g.bytes(g.output(n, 0));
}

}  // namespace

const OpDef cross_entropy_op = {.name = "cross_entropy",
                                .infer = infer_cross_entropy,
                                .grad = grad_cross_entropy,
                                .flops = flops<0, 4>,
                                .workspace = workspace_cross_entropy,
                                .cpu = cross_entropy_cpu};
const OpDef cross_entropy_grad_op = {.name = "cross_entropy_grad",
                                     .infer = infer_cross_entropy_grad,
                                     .flops = flops<1, 4>,
                                     .aliases = {{{Alias::in_place, 0, 1}}},
                                     .cpu = cross_entropy_grad_cpu};
const OpDef mse_op = {.name = "mse",
                      .infer = infer_mse,
                      .grad = grad_mse,
                      .flops = flops<0, 3>,
                      .workspace = workspace_mse,
                      .cpu = mse_cpu};
const OpDef mse_grad_op = {.name = "mse_grad",
                           .infer = infer_mse_grad,
                           .flops = flops<1, 2>,
                           .aliases = {{{Alias::in_place, 0, 1}, {Alias::in_place, 0, 2}}},
                           .cpu = mse_grad_cpu};
const OpDef count_correct_op = {
    .name = "count_correct", .infer = infer_count, .flops = flops<0, 1>, .cpu = count_correct_cpu};

ValueId cross_entropy(Graph& graph, ValueId logits, ValueId labels,
                      const CrossEntropyAttrs& attrs) {
  return graph.emit(cross_entropy_op, {logits, labels}, attrs);
}

ValueId mse(Graph& graph, ValueId x, ValueId target) { return graph.emit(mse_op, {x, target}); }

ValueId count_correct(Graph& graph, ValueId logits, ValueId labels, int64_t ignore_index) {
  return graph.emit(count_correct_op, {logits, labels}, CountCorrectAttrs{ignore_index});
}

}  // namespace lithe
