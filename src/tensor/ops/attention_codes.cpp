#include "tensor/ops/attention_codes.h"

#include <algorithm>
#include <array>
#include <vector>

#include "tensor/ops/attention_blocks.h"
#include "tensor/ops/attention_codes_workspace.h"
#include "tensor/ops/attention_shapes.h"

namespace lithe {
namespace {

constexpr int kScales = 8;  // the first input of scales

void expect_quantized(InferContext& c, const SavedCode& code) {
  if (code.kind != SavedCode::Kind::quantized) {
    c.fail("a quantized code of the operands is wanted");
  }
}

void infer_grad(InferContext& c) {
  c.expect_inputs(3, kScales + 3);
  const auto attrs = c.attr<AttentionCodesGradAttrs>();
  expect_quantized(c, attrs.code);
  for (const int i : {5, kScales, kScales + 1, kScales + 2}) {
    if (!c.has(i)) {
      c.fail("input {} is missing; it needs dout, and scales behind the codes", i);
    }
  }
  c.expect_floating(5);
  expect_attention_shapes(c, attrs.grad.forward, 6, 7);
  for (int i = 0; i < 3; ++i) {
    expect_code(c, attrs.code, i, kScales + i, c.shape(i));
  }
  expect_attention_grad(c, attrs.grad, c.dtype(5));
}

void define_grad(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const auto attrs = g.attr<AttentionCodesGradAttrs>(n);
  std::array<ValueId, 8> inputs;
  std::copy_n(g.inputs(n).begin(), inputs.size(), inputs.begin());
  for (size_t i = 0; i < 3; ++i) {
    const std::array<ValueId, 2> parts = {inputs[i], g.in(n, kScales + static_cast<int>(i))};
    inputs[i] = emit_decode(g, parts, attrs.code, g.dtype(g.in(n, 5)));
  }
  const NodeId grad = g.emit_node(attention_grad_op, inputs, attrs.grad);
  std::copy_n(g.outputs(grad).begin(), outputs.size(), outputs.begin());
}

double flops_grad(const Graph& g, NodeId n) {
  double decoding = 0;
  for (int i = 0; i < 3; ++i) {
    decoding += static_cast<double>(g.shape(g.in(n, i)).numel());
  }
  return decoding + attention_grad_flops(g.attr<AttentionCodesGradAttrs>(n).grad,
                                         g.shape(g.in(n, 0)), g.shape(g.in(n, 1)));
}

int64_t workspace_grad(const Graph& g, NodeId n, DeviceKind device) {
  const auto attrs = g.attr<AttentionCodesGradAttrs>(n);
  const Shape& q = g.shape(g.in(n, 0));
  const Shape& k = g.shape(g.in(n, 1));
  const DType dtype = g.dtype(g.in(n, 5));
  const bool has_out = g.in(n, kAttentionGradOutput) != kNoValue;
  const int64_t own = attention_grad_workspace(attrs.grad, q, k, dtype, has_out, device);
  if (device == DeviceKind::cuda &&
      is_differentiated_in_codes(attrs.code, dtype, q, attrs.grad.forward.scale)) {
    return own;
  }
  return checked_add(own, decoded_bytes(dtype, q) + 2 * decoded_bytes(dtype, k));
}

}  // namespace

bool is_differentiated_in_codes(const SavedCode& code, DType dtype, const Shape& q, double scale) {
  return code.kind == SavedCode::Kind::quantized && code.bits == 8 && dtype == DType::f32 &&
         q[3] <= attention_blocks::kMostCodedSingleDim &&
         attention_blocks::on_tensor_cores(dtype, q[3], scale);
}

const OpDef attention_codes_grad_op = {.name = "attention_codes_grad",
                                       .infer = infer_grad,
                                       .define = define_grad,
                                       .flops = flops_grad,
                                       .workspace = workspace_grad,
                                       .cpu = attention_codes_grad_cpu,
                                       .adjacent_outputs = true};

}  // namespace lithe
