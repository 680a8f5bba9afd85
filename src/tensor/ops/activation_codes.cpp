#include "tensor/ops/activation_codes.h"

#include <array>
#include <vector>

#include "tensor/ops/activation_codes_workspace.h"

namespace lithe {
namespace {

void infer(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  const auto attrs = c.attr<ActivationCodesAttrs>();
  if (attrs.kind == Activation::none || attrs.x.parts() + attrs.y.parts() == 0) {
    c.fail("an activation and a code of x or of y are wanted");
  }
  c.output(c.dtype(0), c.shape(0));
  declare_code(c, attrs.x, c.shape(0));
  declare_code(c, attrs.y, c.shape(0));
}

void define(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const auto attrs = g.attr<ActivationCodesAttrs>(n);
  const ValueId x = g.in(n, 0);
  outputs[0] = activation(g, x, attrs.kind);
  emit_encode(g, x, attrs.x, outputs.subspan(1));
  emit_encode(g, outputs[0], attrs.y, outputs.subspan(1 + static_cast<size_t>(attrs.x.parts())));
}

double flops(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.in(n, 0)).numel()) *
         activation_codes_flops(g.attr<ActivationCodesAttrs>(n));
}

void infer_grad(InferContext& c) {
  const auto attrs = c.attr<ActivationCodesGradAttrs>();
  if (attrs.code.kind == SavedCode::Kind::none) {
    c.fail("the code of what the activation keeps is wanted");
  }
  c.expect_inputs(1 + attrs.code.parts());
  c.expect_floating(0);
  expect_code(c, attrs.code, 1, 2);
  c.output(c.dtype(0), c.shape(0));
  if (attrs.grad.column_sum) {
    if (c.shape(0).rank() < 1) {
      c.fail("dy is a scalar; sums by column want [..., columns]");
    }
    c.output(c.dtype(0), {c.shape(0).back()});
  }
}

void define_grad(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const auto attrs = g.attr<ActivationCodesGradAttrs>(n);
  const ValueId dy = g.in(n, 0);
  const std::vector<ValueId> inputs(g.inputs(n).begin(), g.inputs(n).end());
  const ValueId kept = emit_decode(g, std::span(inputs).subspan(1), attrs.code, g.dtype(dy));
  const NodeId grad = g.emit_node(activation_grad_op, std::array{dy, kept}, attrs.grad);
  for (int i = 0; i < g.node(grad).output_count; ++i) {
    outputs[static_cast<size_t>(i)] = g.output(grad, i);
  }
}

int64_t workspace_grad(const Graph& g, NodeId n, DeviceKind device) {
  return activation_codes_grad_bytes(g.attr<ActivationCodesGradAttrs>(n), g.shape(g.in(n, 0)),
                                     g.dtype(g.in(n, 0)), device);
}

}  // namespace

const OpDef activation_codes_op = {.name = "activation_codes",
                                   .infer = infer,
                                   .define = define,
                                   .flops = flops,
                                   .aliases = {{{Alias::in_place, 0, 0}}},
                                   .cpu = activation_codes_cpu};
const OpDef activation_codes_grad_op = {.name = "activation_codes_grad",
                                        .infer = infer_grad,
                                        .define = define_grad,
                                        .workspace = workspace_grad,
                                        .aliases = {{{Alias::in_place, 0, 0}}},
                                        .cpu = activation_codes_grad_cpu};

}  // namespace lithe
