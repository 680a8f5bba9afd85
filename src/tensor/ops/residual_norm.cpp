#include "tensor/ops/residual_norm.h"

#include "tensor/ops/column_sum.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/residual_norm_shapes.h"
#include "tensor/ops/residual_norm_split.h"

namespace lithe {
namespace {

void expect_dropout(InferContext& c, const DropoutAttrs& dropout, int rng) {
  if (!(dropout.p >= 0 && dropout.p < 1)) {
    c.fail("dropout p is {}; give a probability of zero in [0, 1)", dropout.p);
  }
  if (dropout.p > 0) {
    if (dropout.bits != 16) {
      c.fail("dropout of {} random bits an element; 16 are wanted", dropout.bits);
    }
    if (!c.has(rng)) {
      c.fail("dropout {} needs rng, an int64 [2] input (seed, step)", dropout.p);
    }
    if (c.dtype(rng) != DType::i64) {
      c.fail("rng is {}; int64 [2] (seed, step) is wanted", dtype_name(c.dtype(rng)));
    }
    c.expect_shape(rng, {2}, "rng");
  }
}

void infer(InferContext& c) {
  c.expect_inputs(4, 5);
  expect_residual_norm(c, c.attr<ResidualNormAttrs>());
  c.output(c.dtype(0), c.shape(0));
  c.output(c.dtype(0), c.shape(0));
  c.output(norm_statistics_dtype(c.dtype(0)), norm_rows(c.shape(0)));
  c.output(norm_statistics_dtype(c.dtype(0)), norm_rows(c.shape(0)));
}

void infer_grad(InferContext& c) {
  c.expect_inputs(5, 7);
  expect_norm_rows(c, 0);
  c.expect_same_dtype(0, 1);
  c.expect_shape(1, c.shape(0), "sum");
  expect_residual_norm_grad(c, c.attr<ResidualNormGradAttrs>());
}

// Only sum was read on: nothing passes the norm.
void grad_of_sum(GradContext& c, const DropoutAttrs& dropout, ValueId dsum) {
  if (c.wants(1)) {
    c.set(1, dsum);
  }
  if (c.wants(0)) {
    c.set(0, dropout.p > 0 ? c.graph.emit(dropout_op, {dsum, c.in(4)}, dropout) : dsum);
  }
}

void grad_of_parameters(GradContext& c, ValueId dnormed) {
  if (c.wants(2)) {
    const std::array<ValueId, 4> inputs = {dnormed, c.out(1), c.out(2), c.out(3)};
    const NodeId n =
        c.graph.emit_node(layer_norm_dgamma_op, inputs, NormGradAttrs{.with_beta = c.wants(3)});
    c.set(2, c.graph.output(n, 0));
    if (c.wants(3)) {
      c.set(3, c.graph.output(n, 1));
    }
  } else if (c.wants(3)) {
    c.set(3, c.graph.emit(bias_grad_op, {dnormed}));  // reads no sum
  }
}

// Whether the pass over y's gradient shall sum it for the layer that made y. A reader of y between
// the two, whose gradient is still to come, leaves that sum unused.
bool sums_bias(const GradContext& c) {
  if (!c.wants(0) || c.in(0) == c.in(1) || c.arrived(0) != kNoValue) {
    return false;
  }
  const Graph& g = c.graph;
  const NodeId made = g.value(c.in(0)).producer;
  return made != kNoNode && g.node(made).op == &linear_op && g.node(made).input_count > 2 &&
         c.wanted(g.in(made, 2)) && g.attr<LinearAttrs>(made).activation == Activation::none;
}

void grad(GradContext& c) {
  const DropoutAttrs dropout = c.attr<ResidualNormAttrs>().dropout;
  const ValueId dnormed = c.dout(0);
  const ValueId dsum = c.dout(1);
  if (dnormed == kNoValue) {
    if (dsum != kNoValue) {
      grad_of_sum(c, dropout, dsum);
    }
    return;
  }
  if (!c.wants(0) && !c.wants(1)) {
    grad_of_parameters(c, dnormed);
    return;
  }
  const bool drops = dropout.p > 0;
  ResidualNormGradAttrs attrs{.sum = c.wants(1) || !drops,
                              .y = c.wants(0) && drops,
                              .gamma = c.wants(2),
                              .beta = c.wants(3),
                              .bias = sums_bias(c)};
  if (!attrs.y && dsum == kNoValue && !attrs.gamma && !attrs.beta && !attrs.bias) {
    grad_of_sum(c, dropout,
                c.graph.emit(layer_norm_dx_op, {dnormed, c.out(1), c.out(2), c.out(3), c.in(2)}));
    return;
  }
  // Without a gradient of y no mask is drawn.
  std::array<ValueId, 7> inputs = {dnormed, c.out(1), c.out(2), c.out(3), c.in(2), dsum, kNoValue};
  if (attrs.y) {
    attrs.dropout = dropout;
    inputs[6] = c.in(4);
  }
  const NodeId n = c.graph.emit_node(residual_norm_grad_op, inputs, attrs);
  int output = 0;
  if (attrs.sum) {
    const ValueId total = c.graph.output(n, output++);
    if (c.wants(1)) {
      c.set(1, total);
    }
    if (c.wants(0) && !drops) {
      c.set(0, total);
    }
  }
  if (attrs.y) {
    c.set(0, c.graph.output(n, output++));
  }
  if (attrs.gamma) {
    c.set(2, c.graph.output(n, output++));
  }
  if (attrs.beta) {
    c.set(3, c.graph.output(n, output++));
  }
}

void define(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const auto attrs = g.attr<ResidualNormAttrs>(n);
  const ValueId rng = g.node(n).input_count > 4 ? g.in(n, 4) : kNoValue;
  const std::array<ValueId, 4> in = {g.in(n, 0), g.in(n, 1), g.in(n, 2), g.in(n, 3)};
  const ValueId sum = add(g, in[1], dropout(g, in[0], rng, attrs.dropout));
  const std::array<ValueId, 3> operands = {sum, in[2], in[3]};
  const NodeId norm = g.emit_node(layer_norm_op, operands, NormAttrs{.eps = attrs.eps});
  outputs[0] = g.output(norm, 0);
  outputs[1] = sum;
  outputs[2] = g.output(norm, 1);
  outputs[3] = g.output(norm, 2);
}

double elements(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.in(n, 0)).numel());
}

// As the ops that it stands for: 8 of the norm, 1 of the sum, 1 of dropout.
double flops(const Graph& g, NodeId n) {
  const bool drops = g.attr<ResidualNormAttrs>(n).dropout.p > 0;
  return elements(g, n) * (drops ? 10 : 9);
}

double flops_grad(const Graph& g, NodeId n) {
  const bool joins = g.node(n).input_count > 5 && g.in(n, 5) != kNoValue;
  return elements(g, n) * residual_norm_grad_flops(g.attr<ResidualNormGradAttrs>(n), joins);
}

int64_t workspace_grad(const Graph& g, NodeId n, DeviceKind device) {
  const ValueId x = g.in(n, 0);
  return residual_norm_grad_workspace(g.attr<ResidualNormGradAttrs>(n), g.shape(x), g.dtype(x),
                                      device);
}

// All are elementwise behind each row's sums, and no row is read after its own is written.
constexpr AliasRules kForward = {{{Alias::in_place, 1, 1},
                                  {Alias::in_place, 1, 0},
                                  {Alias::in_place, 0, 0},
                                  {Alias::in_place, 0, 1}}};
constexpr AliasRules kBackward = {
    {{Alias::in_place, 0, 0}, {Alias::in_place, 0, 1}, {Alias::in_place, 0, 5}}};

}  // namespace

const OpDef residual_norm_op = {.name = "residual_norm",
                                .infer = infer,
                                .grad = grad,
                                .define = define,
                                .flops = flops,
                                .aliases = kForward,
                                .cpu = residual_norm_cpu};
const OpDef residual_norm_grad_op = {.name = "residual_norm_grad",
                                     .infer = infer_grad,
                                     .flops = flops_grad,
                                     .workspace = workspace_grad,
                                     .aliases = kBackward,
                                     .cpu = residual_norm_grad_cpu};

void expect_residual_norm(InferContext& c, const ResidualNormAttrs& attrs) {
  expect_norm_rows(c, 0);
  c.expect_same_dtype(0, 1);
  c.expect_shape(1, c.shape(0), "residual");
  expect_norm_parameter(c, 2, "gamma");
  expect_norm_parameter(c, 3, "beta");
  expect_dropout(c, attrs.dropout, 4);
}

void expect_residual_norm_grad(InferContext& c, const ResidualNormGradAttrs& attrs) {
  expect_norm_statistics(c, 2, "mean");
  expect_norm_statistics(c, 3, "rstd");
  expect_norm_parameter(c, 4, "gamma");
  if (c.has(5)) {
    c.expect_same_dtype(0, 5);
    c.expect_shape(5, c.shape(0), "dsum");
  }
  expect_dropout(c, attrs.dropout, 6);
  if (!attrs.sum && !attrs.y) {
    c.fail("neither the gradient of sum nor of y is asked for; layer_norm_dgamma gives the others");
  }
  if (attrs.y && attrs.dropout.p == 0) {
    c.fail("the gradient of y is asked for; without dropout it is that of sum");
  }
  for (const bool wanted : {attrs.sum, attrs.y}) {
    if (wanted) {
      c.output(c.dtype(0), c.shape(0));
    }
  }
  for (const bool wanted : {attrs.gamma, attrs.beta, attrs.bias}) {
    if (wanted) {
      c.output(c.dtype(0), {c.shape(0).back()});
    }
  }
}

int residual_norm_grad_flops(const ResidualNormGradAttrs& attrs, bool joins) {
  return 11 + (joins ? 1 : 0) + attrs.y + (attrs.gamma ? 4 : 0) + attrs.beta + attrs.bias;
}

int64_t residual_norm_grad_workspace(const ResidualNormGradAttrs& attrs, const Shape& x,
                                     DType dtype, DeviceKind device) {
  const bool parameters = attrs.gamma || attrs.beta;
  if (!parameters && !attrs.bias) {
    return 0;
  }
  const int64_t rows = x.product(0, x.rank() - 1);
  const int64_t size = dtype == DType::f64 ? 8 : 4;
  if (device == DeviceKind::cuda) {
    // The general kernels make gamma's and beta's sums always, lay down the one that nobody wants
    // behind them, and use the place again for the bias.
    const int64_t blocks = norm_blocks(rows, x.back(), dtype);
    const int64_t general = parameters ? 2 * row_chunks(rows) + 1 : row_chunks(rows);
    return (blocks > 0 ? norm_sums(attrs.gamma, attrs.bias) * blocks : general) * x.back() * size;
  }
  return row_chunks(rows) * x.back() * (attrs.gamma + attrs.beta + attrs.bias) * size;
}

ResidualNormOut residual_norm(Graph& graph, ValueId y, ValueId residual, ValueId gamma,
                              ValueId beta, const ResidualNormAttrs& attrs, ValueId rng) {
  // Without dropout the random numbers are not read, so the graph does not hold on to them.
  const ValueId drawn = attrs.dropout.p > 0 ? rng : kNoValue;
  const std::array<ValueId, 5> inputs = {y, residual, gamma, beta, drawn};
  const NodeId n = graph.emit_node(residual_norm_op, inputs, attrs);
  return {graph.output(n, 0), graph.output(n, 1)};
}

}  // namespace lithe
