// Gradients of the parameters of linear layers.
#include <algorithm>

#include "tensor/ops/matmul.h"
#include "tensor/ops/product_workspace.h"

namespace lithe {
namespace {

// ---- bias gradient

void infer_bias_grad(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  if (c.shape(0).rank() < 1) {
    c.fail("input 0 is a scalar; [..., out] is wanted");
  }
  c.output(c.dtype(0), {c.shape(0).back()});
}

double flops_bias_grad(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.in(n, 0)).numel());
}

int64_t workspace_bias_grad(const Graph& g, NodeId n, DeviceKind) {
  const Shape& dy = g.shape(g.in(n, 0));
  return row_chunks(dy.product(0, dy.rank() - 1)) * dy.back() * sum_size(g.dtype(g.in(n, 0)));
}

// ---- gradients of a linear layer's parameters

void infer_linear_dw(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  c.expect_same_dtype(0, 1);
  const Shape& dy = c.shape(0);
  const Shape& x = c.shape(1);
  bool same = dy.rank() == x.rank() && dy.rank() > 0;
  for (int i = 0; same && i < dy.rank() - 1; ++i) {
    same = dy[i] == x[i];
  }
  if (!same) {
    c.fail("dy {} and x {}: [..., out] and [..., in] with the same leading dimensions are wanted",
           dy, x);
  }
  c.output(c.dtype(0), {dy.back(), x.back()});
  c.output(c.dtype(0), {dy.back()});
}

void define_linear_dw(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const ValueId dy = g.in(n, 0);
  const ValueId x = g.in(n, 1);
  outputs[0] = matmul(g, as_matrix(g, dy), as_matrix(g, x), {.transpose_a = true});
  outputs[1] = g.emit(bias_grad_op, {dy});
}

double flops_linear_dw(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.in(n, 0)).numel()) *
         (2.0 * static_cast<double>(g.shape(g.in(n, 1)).back()) + 1);
}

// The product and the sum take turns in it.
int64_t workspace_linear_dw(const Graph& g, NodeId n, DeviceKind device) {
  const int64_t most = std::max(workspace_product(g, n, device), workspace_bias_grad(g, n, device));
  const Shape& dy = g.shape(g.in(n, 0));
  const Shape& dw = g.shape(g.output(n, 0));
  return device == DeviceKind::cpu
             ? most
             : std::max(most, workspace_narrow_dw(dy.product(0, dy.rank() - 1), dw[0], dw[1],
                                                  g.dtype(g.in(n, 0))));
}

// ---- those of several layers of one input

void infer_linear_stack_dw(InferContext& c) {
  const auto attrs = c.attr<LinearStackDwAttrs>();
  const int most = InferContext::kMaxOutputs / (attrs.with_bias ? 2 : 1);
  if (attrs.count < 1 || attrs.count > most || c.input_count() != attrs.count + 1) {
    c.fail("{} inputs and {} layers; a dy for each of at most {} layers and x are wanted",
           c.input_count(), attrs.count, most);
  }
  c.expect_floating(0);
  const Shape& dy = c.shape(0);
  const Shape& x = c.shape(attrs.count);
  bool same = dy.rank() == x.rank() && dy.rank() > 0;
  for (int i = 0; same && i < dy.rank() - 1; ++i) {
    same = dy[i] == x[i];
  }
  if (!same) {
    c.fail("dy {} and x {}: [..., out] and [..., in] with the same leading dimensions are wanted",
           dy, x);
  }
  for (int i = 1; i < attrs.count; ++i) {
    c.expect_same_dtype(0, i);
    c.expect_shape(i, dy, "every dy");
  }
  c.expect_same_dtype(0, attrs.count);
  for (int i = 0; i < attrs.count; ++i) {
    c.output(c.dtype(0), {dy.back(), x.back()});
  }
  for (int i = 0; attrs.with_bias && i < attrs.count; ++i) {
    c.output(c.dtype(0), {dy.back()});
  }
}

void define_linear_stack_dw(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const auto attrs = g.attr<LinearStackDwAttrs>(n);
  const ValueId x = as_matrix(g, g.in(n, attrs.count));
  for (int i = 0; i < attrs.count; ++i) {
    const ValueId dy = as_matrix(g, g.in(n, i));
    outputs[static_cast<size_t>(i)] = matmul(g, dy, x, {.transpose_a = true});
    if (attrs.with_bias) {
      outputs[static_cast<size_t>(attrs.count + i)] = g.emit(bias_grad_op, {dy});
    }
  }
}

double flops_linear_stack_dw(const Graph& g, NodeId n) {
  const auto attrs = g.attr<LinearStackDwAttrs>(n);
  const double in = static_cast<double>(g.shape(g.in(n, attrs.count)).back());
  return attrs.count * static_cast<double>(g.shape(g.in(n, 0)).numel()) *
         (2.0 * in + (attrs.with_bias ? 1 : 0));
}

// On CUDA of all layers at once, on the CPU of one after the other.
int64_t workspace_linear_stack_dw(const Graph& g, NodeId n, DeviceKind device) {
  const auto attrs = g.attr<LinearStackDwAttrs>(n);
  const DType dtype = g.dtype(g.in(n, 0));
  const Shape& dy = g.shape(g.in(n, 0));
  const Shape& dw = g.shape(g.output(n, 0));
  const int64_t rows = dy.product(0, dy.rank() - 1);
  const int64_t sums = attrs.with_bias ? workspace_bias_grad(g, n, device) : 0;
  if (device == DeviceKind::cuda) {
    const int64_t product = std::min(checked_mul(attrs.count, workspace_split(g, n)), kMostSplit);
    return std::max(
        {product, checked_mul(attrs.count, sums), workspace_narrow_dw(rows, dw[0], dw[1], dtype)});
  }
  const bool half = dtype == DType::bf16 || dtype == DType::f16;
  const int64_t elements = dy.numel() + g.shape(g.in(n, attrs.count)).numel() + dw.numel();
  return half ? std::max(checked_mul(elements, int64_t{sizeof(float)}), sums) : sums;
}

}  // namespace

const OpDef bias_grad_op = {.name = "bias_grad",
                            .infer = infer_bias_grad,
                            .flops = flops_bias_grad,
                            .workspace = workspace_bias_grad,
                            .cpu = bias_grad_cpu};
const OpDef linear_dw_op = {.name = "linear_dw",
                            .infer = infer_linear_dw,
                            .define = define_linear_dw,
                            .flops = flops_linear_dw,
                            .workspace = workspace_linear_dw,
                            .cpu = linear_dw_cpu};
const OpDef linear_stack_dw_op = {.name = "linear_stack_dw",
                                  .infer = infer_linear_stack_dw,
                                  .define = define_linear_stack_dw,
                                  .flops = flops_linear_stack_dw,
                                  .workspace = workspace_linear_stack_dw,
                                  .cpu = linear_stack_dw_cpu,
                                  .adjacent_outputs = true};

StackedLinearDw::StackedLinearDw(const KernelArgs& stack, size_t i) : args_(stack) {
  const size_t count = stack.in.size() - 1;
  const bool biased = stack.out.size() > count;
  in_ = {stack.in[i], stack.in[count]};
  out_ = {stack.out[i], biased ? stack.out[count + i] : TensorRef{}};
  args_.in = in_;
  args_.out = std::span(out_).first(biased ? 2 : 1);
  args_.attrs = nullptr;
}

}  // namespace lithe
