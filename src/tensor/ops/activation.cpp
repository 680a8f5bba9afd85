#include "tensor/ops/activation.h"

#include "tensor/ops/column_sum.h"

namespace lithe {
namespace {

void infer_unary(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  c.output(c.dtype(0), c.shape(0));
}

void infer_grad(InferContext& c) {
  c.expect_inputs(2);
  c.expect_same_dtype(0, 1);
  c.expect_shape(1, c.shape(0), "the kept tensor");
  c.output(c.dtype(0), c.shape(0));
  if (c.attr<ActivationAttrs>().column_sum) {
    if (c.shape(0).rank() < 1) {
      c.fail("dy is a scalar; sums by column want [..., columns]");
    }
    c.output(c.dtype(0), {c.shape(0).back()});
  }
}

int64_t workspace_grad(const Graph& g, NodeId n, DeviceKind) {
  if (!g.attr<ActivationAttrs>(n).column_sum) {
    return 0;
  }
  const Shape& dy = g.shape(g.in(n, 0));
  const int64_t size = g.dtype(g.in(n, 0)) == DType::f64 ? 8 : 4;
  return row_chunks(dy.product(0, dy.rank() - 1)) * dy.back() * size;
}

bool keeps_output(Activation kind) {
  return kind == Activation::relu || kind == Activation::tanh || kind == Activation::sigmoid;
}

void grad(GradContext& c) {
  const auto attrs = c.attr<ActivationAttrs>();
  if (c.wants(0)) {
    const ValueId kept = keeps_output(attrs.kind) ? c.out() : c.in(0);
    c.set(0, c.graph.emit(activation_grad_op, {c.dout(), kept}, attrs));
  }
}

constexpr OpDef unary(std::string_view name) {
  return {.name = name,
          .infer = infer_unary,
          .grad = grad,
          .aliases = {{{Alias::in_place, 0, 0}}},
          .cpu = activation_cpu};
}

}  // namespace

const OpDef gelu_op = unary("gelu");
const OpDef gelu_tanh_op = unary("gelu_tanh");
const OpDef quick_gelu_op = unary("quick_gelu");
const OpDef silu_op = unary("silu");
const OpDef relu_op = unary("relu");
const OpDef tanh_op = unary("tanh");
const OpDef sigmoid_op = unary("sigmoid");
const OpDef activation_grad_op = {.name = "activation_grad",
                                  .infer = infer_grad,
                                  .workspace = workspace_grad,
                                  .aliases = {{{Alias::in_place, 0, 0}, {Alias::in_place, 0, 1}}},
                                  .cpu = activation_grad_cpu};

std::optional<Activation> activation_from_name(std::string_view name) {
  if (name == "gelu")
    return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_tanh") {
    return Activation::gelu_tanh;
  }
  if (name == "quick_gelu")
    return Activation::quick_gelu;
  if (name == "silu" || name == "swish")
    return Activation::silu;
  if (name == "relu")
    return Activation::relu;
  if (name == "tanh")
    return Activation::tanh;
  if (name == "sigmoid")
    return Activation::sigmoid;
  if (name == "none" || name == "linear")
    return Activation::none;
  return std::nullopt;
}

std::string_view activation_name(Activation kind) {
  switch (kind) {
    case Activation::none:
      return "linear";
    case Activation::gelu:
      return "gelu";
    case Activation::gelu_tanh:
      return "gelu_new";
    case Activation::quick_gelu:
      return "quick_gelu";
    case Activation::silu:
      return "silu";
    case Activation::relu:
      return "relu";
    case Activation::tanh:
      return "tanh";
    case Activation::sigmoid:
      return "sigmoid";
  }
  return "";
}

ValueId activation(Graph& graph, ValueId x, Activation kind) {
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::gelu:
      return graph.emit(gelu_op, {x}, ActivationAttrs{kind});
    case Activation::gelu_tanh:
      return graph.emit(gelu_tanh_op, {x}, ActivationAttrs{kind});
    case Activation::quick_gelu:
      return graph.emit(quick_gelu_op, {x}, ActivationAttrs{kind});
    case Activation::silu:
      return graph.emit(silu_op, {x}, ActivationAttrs{kind});
    case Activation::relu:
      return graph.emit(relu_op, {x}, ActivationAttrs{kind});
    case Activation::tanh:
      return graph.emit(tanh_op, {x}, ActivationAttrs{kind});
    case Activation::sigmoid:
      return graph.emit(sigmoid_op, {x}, ActivationAttrs{kind});
  }
  throw GraphError("activation", "unknown kind {}", static_cast<int>(kind));
}

}  // namespace lithe
