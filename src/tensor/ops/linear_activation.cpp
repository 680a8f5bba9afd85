#include "tensor/ops/linear_activation.h"

#include <algorithm>
#include <vector>

#include "tensor/ops/activation_codes_workspace.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/product_workspace.h"

namespace lithe {
namespace {

constexpr int kProductInputs = 2;  // dy and the weight

void infer_forward(InferContext& c) {
  c.expect_inputs(2, 3);
  c.expect_floating(0);
  c.expect_same_dtype(0, 1);
  const auto attrs = c.attr<ActivationCodesAttrs>();
  if (attrs.kind == Activation::none || attrs.x.parts() + attrs.y.parts() == 0) {
    c.fail("an activation and a code of x or of y are wanted");
  }
  const Shape& x = c.shape(0);
  const Shape& w = c.shape(1);
  if (x.rank() < 2 || w.rank() != 2 || x.back() != w[1]) {
    c.fail(
        "x {} and weight {}: x [..., in] with leading dimensions and weight [out, in] are wanted",
        x, w);
  }
  if (c.has(2)) {
    c.expect_same_dtype(0, 2);
    c.expect_shape(2, {w[0]}, "the bias");
  }
  Shape y = x;
  y[x.rank() - 1] = w[0];
  c.output(c.dtype(0), y);
  declare_code(c, attrs.x, y);
  declare_code(c, attrs.y, y);
}

void define_forward(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const std::vector<ValueId> inputs(g.inputs(n).begin(), g.inputs(n).end());
  const std::array<ValueId, 1> x = {g.output(g.emit_node(linear_op, inputs, LinearAttrs{}), 0)};
  const NodeId made = g.emit_node(activation_codes_op, x, g.attr<ActivationCodesAttrs>(n));
  std::copy(g.outputs(made).begin(), g.outputs(made).end(), outputs.begin());
}

double product_flops(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.output(n, 0)).numel()) * 2.0 *
         static_cast<double>(g.shape(g.in(n, 0)).back());
}

double flops_forward(const Graph& g, NodeId n) {
  const int behind = 1 + activation_codes_flops(g.attr<ActivationCodesAttrs>(n));  // and the bias
  return product_flops(g, n) + static_cast<double>(g.shape(g.output(n, 0)).numel()) * behind;
}

void infer_backward(InferContext& c) {
  const auto attrs = c.attr<ActivationCodesGradAttrs>();
  if (attrs.code.kind == SavedCode::Kind::none) {
    c.fail("the code of what the activation keeps is wanted");
  }
  c.expect_inputs(kProductInputs + attrs.code.parts());
  c.expect_floating(0);
  c.expect_same_dtype(0, 1);
  const Shape& dy = c.shape(0);
  const Shape& w = c.shape(1);
  if (dy.rank() < 2 || w.rank() != 2 || dy.back() != w[0]) {
    c.fail("dy {} and weight {}: dy [..., k] with leading dimensions and weight [k, n] are wanted",
           dy, w);
  }
  Shape dx = dy;
  dx[dy.rank() - 1] = w[1];
  expect_code(c, attrs.code, kProductInputs, kProductInputs + 1, dx);
  c.output(c.dtype(0), dx);
  if (attrs.grad.column_sum) {
    c.output(c.dtype(0), {w[1]});
  }
}

void define_backward(Graph& g, NodeId n, std::span<ValueId> outputs) {
  std::vector<ValueId> inputs(g.inputs(n).begin() + 1, g.inputs(n).end());
  inputs[0] = matmul(g, g.in(n, 0), g.in(n, 1));
  const NodeId made =
      g.emit_node(activation_codes_grad_op, inputs, g.attr<ActivationCodesGradAttrs>(n));
  std::copy(g.outputs(made).begin(), g.outputs(made).end(), outputs.begin());
}

double flops_backward(const Graph& g, NodeId n) {
  return product_flops(g, n) + static_cast<double>(g.shape(g.output(n, 0)).numel());
}

// On CUDA the library's, or sums of rows of tiles.
int64_t workspace_backward(const Graph& g, NodeId n, DeviceKind device) {
  const auto attrs = g.attr<ActivationCodesGradAttrs>(n);
  const Shape& dx = g.shape(g.output(n, 0));
  const DType dtype = g.dtype(g.in(n, 0));
  const int64_t rows = dx.product(0, dx.rank() - 1);
  if (device == DeviceKind::cuda &&
      is_finished_in_registers(dtype, rows, dx.back(), g.shape(g.in(n, 0)).back())) {
    const int64_t tiles = (rows + kFinishedRows - 1) / kFinishedRows;
    return attrs.grad.column_sum ? tiles * dx.back() * int64_t{sizeof(float)} : 0;
  }
  return std::max(workspace_product(g, n, device),
                  activation_codes_grad_bytes(attrs, dx, dtype, device));
}

int64_t workspace_forward(const Graph& g, NodeId n, DeviceKind device) {
  const Shape& y = g.shape(g.output(n, 0));
  const bool finished = device == DeviceKind::cuda &&
                        is_finished_in_registers(g.dtype(g.in(n, 0)), y.product(0, y.rank() - 1),
                                                 y.back(), g.shape(g.in(n, 0)).back());
  return finished ? 0 : workspace_product(g, n, device);
}

}  // namespace

bool is_finished_in_registers(DType dtype, int64_t rows, int64_t columns, int64_t depth) {
  const auto fits = [](int64_t n) { return n > 0 && n <= INT32_MAX / 16; };
  return (dtype == DType::bf16 || dtype == DType::f16) && fits(rows) && fits(columns) &&
         fits(depth) && columns % 8 == 0 && depth % 8 == 0;
}

ProductThenActivation::ProductThenActivation(const KernelArgs& args, Way way)
    : product_(args), activation_(args) {
  if (way == Way::forward) {
    product_attrs_ = LinearAttrs{};
    activation_.in = args.out.first(1);
  } else {
    product_attrs_ = MatmulAttrs{};
    product_.in = args.in.first(kProductInputs);
    in_[0] = args.out[0];
    const auto codes = args.in.subspan(kProductInputs);
    std::copy(codes.begin(), codes.end(), in_.begin() + 1);
    activation_.in = std::span(in_).first(1 + codes.size());
  }
  product_.attrs = &product_attrs_;
  product_.out = args.out.first(1);
}

void linear_activation_codes_cpu(const KernelArgs& args) {
  const ProductThenActivation calls(args, ProductThenActivation::Way::forward);
  linear_cpu(calls.product());
  activation_codes_cpu(calls.activation());
}

void matmul_activation_codes_grad_cpu(const KernelArgs& args) {
  const ProductThenActivation calls(args, ProductThenActivation::Way::backward);
  matmul_cpu(calls.product());
  activation_codes_grad_cpu(calls.activation());
}

const OpDef linear_activation_codes_op = {.name = "linear_activation_codes",
                                          .infer = infer_forward,
                                          .define = define_forward,
                                          .flops = flops_forward,
                                          .workspace = workspace_forward,
                                          .cpu = linear_activation_codes_cpu};
const OpDef matmul_activation_codes_grad_op = {.name = "matmul_activation_codes_grad",
                                               .infer = infer_backward,
                                               .define = define_backward,
                                               .flops = flops_backward,
                                               .workspace = workspace_backward,
                                               .cpu = matmul_activation_codes_grad_cpu};

}  // namespace lithe
