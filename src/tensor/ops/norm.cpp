#include "tensor/ops/norm.h"

#include "tensor/ops/column_sum.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm_shapes.h"
#include "tensor/ops/residual_norm.h"

namespace lithe {
namespace {

// dy and x, as every backward op starts.
void expect_gradient_pair(InferContext& c) {
  expect_norm_rows(c, 0);
  c.expect_same_dtype(0, 1);
  c.expect_shape(1, c.shape(0), "x");
}

double elements(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.in(n, 0)).numel());
}

// ---- layer norm

void infer_layer_norm(InferContext& c) {
  c.expect_inputs(3);
  expect_norm_rows(c, 0);
  expect_norm_parameter(c, 1, "gamma");
  expect_norm_parameter(c, 2, "beta");
  c.output(c.dtype(0), c.shape(0));
  c.output(norm_statistics_dtype(c.dtype(0)), norm_rows(c.shape(0)));
  c.output(norm_statistics_dtype(c.dtype(0)), norm_rows(c.shape(0)));
}

void infer_layer_norm_dx(InferContext& c) {
  c.expect_inputs(5);
  expect_gradient_pair(c);
  expect_norm_statistics(c, 2, "mean");
  expect_norm_statistics(c, 3, "rstd");
  expect_norm_parameter(c, 4, "gamma");
  c.output(c.dtype(0), c.shape(0));
}

void infer_layer_norm_dgamma(InferContext& c) {
  c.expect_inputs(4);
  expect_gradient_pair(c);
  expect_norm_statistics(c, 2, "mean");
  expect_norm_statistics(c, 3, "rstd");
  c.output(c.dtype(0), {c.shape(0).back()});
  if (c.attr<NormGradAttrs>().with_beta) {
    c.output(c.dtype(0), {c.shape(0).back()});
  }
}

void grad_layer_norm(GradContext& c) {
  Graph& g = c.graph;
  const ValueId dy = c.dout();
  if (dy == kNoValue) {
    return;
  }
  if (c.wants(0) && (c.wants(1) || c.wants(2))) {
    const std::array<ValueId, 5> inputs = {dy, c.in(0), c.out(1), c.out(2), c.in(1)};
    const NodeId n =
        g.emit_node(residual_norm_grad_op, inputs,
                    ResidualNormGradAttrs{.sum = true, .gamma = c.wants(1), .beta = c.wants(2)});
    int output = 0;
    for (const int i : {0, 1, 2}) {
      if (c.wants(i)) {
        c.set(i, g.output(n, output++));
      }
    }
  } else if (c.wants(0)) {
    c.set(0, g.emit(layer_norm_dx_op, {dy, c.in(0), c.out(1), c.out(2), c.in(1)}));
  } else if (c.wants(1)) {
    const std::array<ValueId, 4> inputs = {dy, c.in(0), c.out(1), c.out(2)};
    const NodeId n =
        g.emit_node(layer_norm_dgamma_op, inputs, NormGradAttrs{.with_beta = c.wants(2)});
    c.set(1, g.output(n, 0));
    if (c.wants(2)) {
      c.set(2, g.output(n, 1));
    }
  } else if (c.wants(2)) {
    c.set(2, g.emit(bias_grad_op, {dy}));  // reads no x
  }
}

// ---- RMS norm

void infer_rms_norm(InferContext& c) {
  c.expect_inputs(2);
  expect_norm_rows(c, 0);
  expect_norm_parameter(c, 1, "gamma");
  c.output(c.dtype(0), c.shape(0));
  c.output(norm_statistics_dtype(c.dtype(0)), norm_rows(c.shape(0)));
}

void infer_rms_norm_dx(InferContext& c) {
  c.expect_inputs(4);
  expect_gradient_pair(c);
  expect_norm_statistics(c, 2, "rstd");
  expect_norm_parameter(c, 3, "gamma");
  c.output(c.dtype(0), c.shape(0));
}

void infer_rms_norm_dgamma(InferContext& c) {
  c.expect_inputs(3);
  expect_gradient_pair(c);
  expect_norm_statistics(c, 2, "rstd");
  c.output(c.dtype(0), {c.shape(0).back()});
}

void grad_rms_norm(GradContext& c) {
  Graph& g = c.graph;
  const ValueId dy = c.dout();
  if (dy == kNoValue) {
    return;
  }
  if (c.wants(1)) {
    c.set(1, g.emit(rms_norm_dgamma_op, {dy, c.in(0), c.out(1)}));
  }
  if (c.wants(0)) {
    c.set(0, g.emit(rms_norm_dx_op, {dy, c.in(0), c.out(1), c.in(1)}));
  }
}

// Per element: layer norm 2 for the mean and variance each and 4 to apply them, its gradient 11,
// ...
double flops_layer_norm(const Graph& g, NodeId n) { return 8 * elements(g, n); }
double flops_layer_norm_dx(const Graph& g, NodeId n) { return 11 * elements(g, n); }
double flops_layer_norm_dgamma(const Graph& g, NodeId n) { return 5 * elements(g, n); }
double flops_rms_norm(const Graph& g, NodeId n) { return 4 * elements(g, n); }
double flops_rms_norm_dx(const Graph& g, NodeId n) { return 7 * elements(g, n); }
double flops_rms_norm_dgamma(const Graph& g, NodeId n) { return 3 * elements(g, n); }

int64_t workspace_dgamma(const Graph& g, NodeId n, DeviceKind) {
  const Shape& dy = g.shape(g.in(n, 0));
  const int64_t sums = g.attr<NormGradAttrs>(n).with_beta ? 2 : 1;
  const int64_t size = g.dtype(g.in(n, 0)) == DType::f64 ? 8 : 4;
  return row_chunks(dy.product(0, dy.rank() - 1)) * dy.back() * sums * size;
}

// dx is written over dy or x, of which no row is read after its own is written.
constexpr AliasRules kEither = {{{Alias::in_place, 0, 0}, {Alias::in_place, 0, 1}}};

}  // namespace

const OpDef layer_norm_op = {.name = "layer_norm",
                             .infer = infer_layer_norm,
                             .grad = grad_layer_norm,
                             .flops = flops_layer_norm,
                             .aliases = {{{Alias::in_place, 0, 0}}},
                             .cpu = layer_norm_cpu};
const OpDef layer_norm_dx_op = {.name = "layer_norm_dx",
                                .infer = infer_layer_norm_dx,
                                .flops = flops_layer_norm_dx,
                                .aliases = kEither,
                                .cpu = layer_norm_dx_cpu};
const OpDef layer_norm_dgamma_op = {.name = "layer_norm_dgamma",
                                    .infer = infer_layer_norm_dgamma,
                                    .flops = flops_layer_norm_dgamma,
                                    .workspace = workspace_dgamma,
                                    .cpu = layer_norm_dgamma_cpu};
const OpDef rms_norm_op = {.name = "rms_norm",
                           .infer = infer_rms_norm,
                           .grad = grad_rms_norm,
                           .flops = flops_rms_norm,
                           .aliases = {{{Alias::in_place, 0, 0}}},
                           .cpu = rms_norm_cpu};
const OpDef rms_norm_dx_op = {.name = "rms_norm_dx",
                              .infer = infer_rms_norm_dx,
                              .flops = flops_rms_norm_dx,
                              .aliases = kEither,
                              .cpu = rms_norm_dx_cpu};
const OpDef rms_norm_dgamma_op = {.name = "rms_norm_dgamma",
                                  .infer = infer_rms_norm_dgamma,
                                  .flops = flops_rms_norm_dgamma,
                                  .workspace = workspace_dgamma,
                                  .cpu = rms_norm_dgamma_cpu};

ValueId layer_norm(Graph& graph, ValueId x, ValueId gamma, ValueId beta, double eps) {
  return graph.emit(layer_norm_op, {x, gamma, beta}, NormAttrs{.eps = eps});
}

ValueId rms_norm(Graph& graph, ValueId x, ValueId gamma, double eps) {
  return graph.emit(rms_norm_op, {x, gamma}, NormAttrs{.eps = eps});
}

}  // namespace lithe
