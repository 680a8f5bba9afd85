#include "tensor/ops/column_sum.h"
#include "tensor/ops/group_norm_split.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"

namespace lithe {
namespace {

DType statistics_dtype(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

void expect_channels(InferContext& c, int groups) {
  c.expect_floating(0);
  const Shape& x = c.shape(0);
  if (x.rank() < 2) {
    c.fail("input 0 has shape {}; [B, ..., C] is wanted", x);
  }
  if (groups < 1 || x.back() % groups != 0) {
    c.fail("{} channels do not divide into {} groups; choose a divisor", x.back(), groups);
  }
}

void expect_parameter(InferContext& c, int i, const char* name) {
  c.expect_same_dtype(0, i);
  c.expect_shape(i, {c.shape(0).back()}, name);
}

void expect_statistics(InferContext& c, int i, int groups, const char* name) {
  c.expect_shape(i, {c.shape(0)[0], groups}, name);
  if (c.dtype(i) != statistics_dtype(c.dtype(0))) {
    c.fail("{} is {}, {} wanted", name, dtype_name(c.dtype(i)),
           dtype_name(statistics_dtype(c.dtype(0))));
  }
}

void infer_group_norm(InferContext& c) {
  c.expect_inputs(3);
  const int groups = c.attr<NormAttrs>().groups;
  expect_channels(c, groups);
  expect_parameter(c, 1, "gamma");
  expect_parameter(c, 2, "beta");
  const Shape statistics = {c.shape(0)[0], groups};
  c.output(c.dtype(0), c.shape(0));
  c.output(statistics_dtype(c.dtype(0)), statistics);
  c.output(statistics_dtype(c.dtype(0)), statistics);
}

void expect_backward(InferContext& c, int groups) {
  expect_channels(c, groups);
  c.expect_same_dtype(0, 1);
  c.expect_shape(1, c.shape(0), "x");
  expect_statistics(c, 2, groups, "mean");
  expect_statistics(c, 3, groups, "rstd");
}

void infer_group_norm_dx(InferContext& c) {
  c.expect_inputs(5);
  expect_backward(c, c.attr<NormGradAttrs>().groups);
  expect_parameter(c, 4, "gamma");
  c.output(c.dtype(0), c.shape(0));
}

void infer_group_norm_dgamma(InferContext& c) {
  c.expect_inputs(4);
  expect_backward(c, c.attr<NormGradAttrs>().groups);
  c.output(c.dtype(0), {c.shape(0).back()});
}

void grad_group_norm(GradContext& c) {
  Graph& g = c.graph;
  const ValueId dy = c.dout();
  if (dy == kNoValue) {
    return;
  }
  const NormGradAttrs attrs{.groups = c.attr<NormAttrs>().groups};
  if (c.wants(1)) {
    c.set(1, g.emit(group_norm_dgamma_op, {dy, c.in(0), c.out(1), c.out(2)}, attrs));
  }
  if (c.wants(2)) {
    c.set(2, g.emit(bias_grad_op, {dy}));  // the same bits whether gamma is trained or not
  }
  if (c.wants(0)) {
    c.set(0, g.emit(group_norm_dx_op, {dy, c.in(0), c.out(1), c.out(2), c.in(1)}, attrs));
  }
}

double elements(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.in(n, 0)).numel());
}
double flops_group_norm(const Graph& g, NodeId n) { return 8 * elements(g, n); }
double flops_group_norm_dx(const Graph& g, NodeId n) { return 11 * elements(g, n); }
double flops_group_norm_dgamma(const Graph& g, NodeId n) { return 5 * elements(g, n); }

int64_t statistic_bytes(const Graph& g, NodeId n) {
  return dtype_bits(statistics_dtype(g.dtype(g.in(n, 0)))) / 8;
}

// On the CPU: sums of every range of positions [B, chunks, sums, C], then coefficients [B, 3, C].
int64_t workspace_cpu(const Graph& g, NodeId n, int64_t sums) {
  const Shape& x = g.shape(g.in(n, 0));
  const int64_t chunks = row_chunks(x.product(1, x.rank() - 1));
  return checked_mul(x[0] * x.back(), (chunks * sums + 3) * statistic_bytes(g, n));
}
// On CUDA: sums [B, chunks, 2, C], then coefficients [B, groups, 2], where a group does not fit
// into a block.
int64_t workspace_cuda(const Graph& g, NodeId n, int groups, int tensors) {
  const Shape& x = g.shape(g.in(n, 0));
  const int64_t chunks = group_norm_chunks(x, groups, g.dtype(g.in(n, 0)), tensors);
  return chunks == 0 ? 0
                     : checked_mul(x[0], (x.back() * chunks + groups) * 2 * statistic_bytes(g, n));
}

int64_t workspace_forward(const Graph& g, NodeId n, DeviceKind device) {
  return device == DeviceKind::cuda ? workspace_cuda(g, n, g.attr<NormAttrs>(n).groups, 1)
                                    : workspace_cpu(g, n, 1);
}
int64_t workspace_dx(const Graph& g, NodeId n, DeviceKind device) {
  return device == DeviceKind::cuda ? workspace_cuda(g, n, g.attr<NormGradAttrs>(n).groups, 2)
                                    : workspace_cpu(g, n, 2);
}
int64_t workspace_dgamma(const Graph& g, NodeId n, DeviceKind device) {
  if (device != DeviceKind::cuda) {
    return workspace_cpu(g, n, 2);
  }
  const Shape& x = g.shape(g.in(n, 0));
  return row_chunks(x.product(0, x.rank() - 1)) * x.back() * statistic_bytes(g, n);
}

}  // namespace

int64_t group_norm_chunks(const Shape& x, int groups, DType dtype, int tensors) {
  constexpr int64_t kMostBlocks = 65535;  // along a grid's second dimension
  const int64_t positions = x.product(1, x.rank() - 1);
  const int64_t group = checked_mul(positions * (x.back() / groups), dtype_bits(dtype) / 8);
  if (group * tensors <= kGroupNormShared) {
    return 0;
  }
  const int64_t chunks = row_chunks(positions);
  return checked_mul(x[0], chunks) > kMostBlocks ? 0 : chunks;
}

const OpDef group_norm_op = {.name = "group_norm",
                             .infer = infer_group_norm,
                             .grad = grad_group_norm,
                             .flops = flops_group_norm,
                             .workspace = workspace_forward,
                             .aliases = {{{Alias::in_place, 0, 0}}},
                             .cpu = group_norm_cpu};
const OpDef group_norm_dx_op = {.name = "group_norm_dx",
                                .infer = infer_group_norm_dx,
                                .flops = flops_group_norm_dx,
                                .workspace = workspace_dx,
                                .aliases = {{{Alias::in_place, 0, 0}, {Alias::in_place, 0, 1}}},
                                .cpu = group_norm_dx_cpu};
const OpDef group_norm_dgamma_op = {.name = "group_norm_dgamma",
                                    .infer = infer_group_norm_dgamma,
                                    .flops = flops_group_norm_dgamma,
                                    .workspace = workspace_dgamma,
                                    .cpu = group_norm_dgamma_cpu};

ValueId group_norm(Graph& graph, ValueId x, ValueId gamma, ValueId beta, int groups, double eps) {
  return graph.emit(group_norm_op, {x, gamma, beta}, NormAttrs{eps, groups});
}

}  // namespace lithe
