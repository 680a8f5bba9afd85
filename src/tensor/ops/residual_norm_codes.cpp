#include "tensor/ops/residual_norm_codes.h"

#include <array>

#include "tensor/ops/norm_shapes.h"
#include "tensor/ops/residual_norm_shapes.h"
#include "tensor/ops/residual_norm_split.h"

namespace lithe {
namespace {

void expect_code_of_sum(InferContext& c, const SavedCode& code) {
  if (code.kind != SavedCode::Kind::quantized) {
    c.fail("a quantized code of the sum is wanted");
  }
}

void infer(InferContext& c) {
  const auto attrs = c.attr<ResidualNormCodesAttrs>();
  c.expect_inputs(4, 5);
  expect_residual_norm(c, attrs.norm);
  expect_code_of_sum(c, attrs.code);
  c.output(c.dtype(0), c.shape(0));
  c.output(norm_statistics_dtype(c.dtype(0)), norm_rows(c.shape(0)));
  c.output(norm_statistics_dtype(c.dtype(0)), norm_rows(c.shape(0)));
  declare_code(c, attrs.code, c.shape(0));
  if (attrs.sum) {
    c.output(c.dtype(0), c.shape(0));
  }
}

void define(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const auto attrs = g.attr<ResidualNormCodesAttrs>(n);
  const std::vector<ValueId> inputs(g.inputs(n).begin(), g.inputs(n).end());
  const NodeId norm = g.emit_node(residual_norm_op, inputs, attrs.norm);
  const ValueId sum = g.output(norm, 1);
  outputs[0] = g.output(norm, 0);
  outputs[1] = g.output(norm, 2);
  outputs[2] = g.output(norm, 3);
  emit_encode(g, sum, attrs.code, outputs.subspan(3));
  if (attrs.sum) {
    outputs[5] = sum;
  }
}

void infer_grad(InferContext& c) {
  const auto attrs = c.attr<ResidualNormCodesGradAttrs>();
  c.expect_inputs(5, 8);
  if (!c.has(7)) {
    c.fail("the scales of the codes, input 7, are missing");
  }
  expect_norm_rows(c, 0);
  expect_code_of_sum(c, attrs.code);
  expect_code(c, attrs.code, 1, 7);
  expect_residual_norm_grad(c, attrs.grad);
}

void define_grad(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const auto attrs = g.attr<ResidualNormCodesGradAttrs>(n);
  std::vector<ValueId> inputs(g.inputs(n).begin(), g.inputs(n).end());
  const DType dtype = g.dtype(inputs[0]);
  inputs[1] = emit_decode(g, std::array{inputs[1], inputs[7]}, attrs.code, dtype);
  inputs.pop_back();
  const NodeId grad = g.emit_node(residual_norm_grad_op, inputs, attrs.grad);
  for (int i = 0; i < g.node(grad).output_count; ++i) {
    outputs[static_cast<size_t>(i)] = g.output(grad, i);
  }
}

// Of residual_norm 9 or 10, of the codes 5.
double flops(const Graph& g, NodeId n) {
  const bool drops = g.attr<ResidualNormCodesAttrs>(n).norm.dropout.p > 0;
  return static_cast<double>(g.shape(g.in(n, 0)).numel()) * (drops ? 15 : 14);
}
double flops_grad(const Graph& g, NodeId n) {
  const auto attrs = g.attr<ResidualNormCodesGradAttrs>(n).grad;
  const double each = 1 + residual_norm_grad_flops(attrs, g.in(n, 5) != kNoValue);
  return each * static_cast<double>(g.shape(g.in(n, 0)).numel());
}

// On the CPU the sum where it is no output.
int64_t workspace(const Graph& g, NodeId n, DeviceKind device) {
  const bool apart = device == DeviceKind::cpu && !g.attr<ResidualNormCodesAttrs>(n).sum;
  return apart ? g.bytes(g.in(n, 0)) : 0;
}

// The CPU decodes behind the sums.
int64_t workspace_grad(const Graph& g, NodeId n, DeviceKind device) {
  const auto attrs = g.attr<ResidualNormCodesGradAttrs>(n).grad;
  const ValueId x = g.in(n, 0);
  const int64_t sums = residual_norm_grad_workspace(attrs, g.shape(x), g.dtype(x), device);
  return device == DeviceKind::cpu ? sums + g.bytes(x) : sums;
}

constexpr AliasRules kForward = {{{Alias::in_place, 5, 1},
                                  {Alias::in_place, 0, 1},
                                  {Alias::in_place, 0, 0},
                                  {Alias::in_place, 5, 0}}};
constexpr AliasRules kBackward = {{{Alias::in_place, 0, 0}, {Alias::in_place, 0, 5}}};

}  // namespace

const OpDef residual_norm_codes_op = {.name = "residual_norm_codes",
                                      .infer = infer,
                                      .define = define,
                                      .flops = flops,
                                      .workspace = workspace,
                                      .aliases = kForward,
                                      .cpu = residual_norm_codes_cpu};
const OpDef residual_norm_codes_grad_op = {.name = "residual_norm_codes_grad",
                                           .infer = infer_grad,
                                           .define = define_grad,
                                           .flops = flops_grad,
                                           .workspace = workspace_grad,
                                           .aliases = kBackward,
                                           .cpu = residual_norm_codes_grad_cpu};

bool is_walked_in_codes(const SavedCode& code, DType dtype, const Shape& x) {
  return code.kind == SavedCode::Kind::quantized && dtype != DType::f64 && x.rank() > 0 &&
         x.back() > 0 && x.back() <= kLongestWarpRow && is_in_lanes(code, x);
}

}  // namespace lithe
