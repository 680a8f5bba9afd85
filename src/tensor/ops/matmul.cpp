#include "tensor/ops/matmul.h"

#include <algorithm>
#include <array>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/product_workspace.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/residual_norm.h"

namespace lithe {
namespace {

// ---- matmul

void infer_matmul(InferContext& c) {
  c.expect_inputs(2, 3);
  c.expect_floating(0);
  c.expect_same_dtype(0, 1);
  const Shape& a = c.shape(0);
  const Shape& b = c.shape(1);
  if (a.rank() < 2 || b.rank() < 2) {
    c.fail("operands {} and {}: at least two dimensions are wanted; reshape to a matrix", a, b);
  }
  const auto attrs = c.attr<MatmulAttrs>();
  const int64_t ka = attrs.transpose_a ? a.back(1) : a.back(0);
  const int64_t kb = attrs.transpose_b ? b.back(0) : b.back(1);
  if (ka != kb) {
    c.fail("{}{} times {}{}: inner dimensions {} and {} differ", a,
           attrs.transpose_a ? " transposed" : "", b, attrs.transpose_b ? " transposed" : "", ka,
           kb);
  }
  const Shape& batches = a.rank() >= b.rank() ? a : b;
  if (a.rank() > 2 && b.rank() > 2) {
    bool same = a.rank() == b.rank();
    for (int i = 0; same && i < a.rank() - 2; ++i) {
      same = a[i] == b[i];
    }
    if (!same) {
      c.fail("{} times {}: leading dimensions differ; make them equal, or one operand a matrix", a,
             b);
    }
  }
  Shape out;
  for (int i = 0; i < batches.rank() - 2; ++i) {
    out.push_back(batches[i]);
  }
  out.push_back(attrs.transpose_a ? a.back(0) : a.back(1));
  out.push_back(attrs.transpose_b ? b.back(1) : b.back(0));
  if (c.has(2)) {
    c.expect_same_dtype(0, 2);
    c.expect_shape(2, out, "the addend");
  }
  c.output(c.dtype(0), out);
}

void grad_matmul(GradContext& c) {
  Graph& g = c.graph;
  const auto attrs = c.attr<MatmulAttrs>();
  const bool ta = attrs.transpose_a;
  const bool tb = attrs.transpose_b;
  const ValueId dy = c.dout();
  if (c.wants(2)) {
    c.set(2, dy);
  }
  if (c.wants(0)) {
    const ValueId da = ta ? matmul(g, c.in(1), dy, {tb, true, attrs.alpha})
                          : matmul(g, dy, c.in(1), {false, !tb, attrs.alpha});
    const Shape wanted = c.shape(0);  // a copy: the graph's own moves when it grows
    c.set(0, sum_to(g, da, wanted));
  }
  if (c.wants(1)) {
    ValueId a = c.in(0);
    ValueId d = dy;
    // A matrix shared by all batches gets one product over all their rows.
    if (c.shape(1).rank() == 2 && !ta) {
      a = as_matrix(g, a);
      d = as_matrix(g, d);
    }
    const ValueId db =
        tb ? matmul(g, d, a, {true, ta, attrs.alpha}) : matmul(g, a, d, {!ta, false, attrs.alpha});
    const Shape wanted = c.shape(1);
    c.set(1, sum_to(g, db, wanted));
  }
}

double flops_matmul(const Graph& g, NodeId n) {
  const Shape& a = g.shape(g.in(n, 0));
  const int64_t k = g.attr<MatmulAttrs>(n).transpose_a ? a.back(1) : a.back(0);
  const bool added = g.node(n).input_count > 2 && g.in(n, 2) != kNoValue;
  return static_cast<double>(g.shape(g.output(n, 0)).numel()) *
         (2.0 * static_cast<double>(k) + (added ? 1 : 0));
}

int64_t workspace_matmul(const Graph& g, NodeId n, DeviceKind device) {
  const int64_t product = workspace_product(g, n, device);
  const Shape& a = g.shape(g.in(n, 0));
  const Shape& b = g.shape(g.in(n, 1));
  const auto attrs = g.attr<MatmulAttrs>(n);
  if (device == DeviceKind::cpu || !attrs.transpose_a || attrs.transpose_b || a.rank() != 2 ||
      b.rank() != 2) {
    return product;
  }
  return std::max(product, workspace_narrow_dw(a[0], a[1], b[1], g.dtype(g.in(n, 0))));
}

// ---- linear

bool keeps_output(Activation kind) {
  return kind == Activation::relu || kind == Activation::tanh || kind == Activation::sigmoid;
}

void infer_linear(InferContext& c) {
  c.expect_inputs(2, 3);
  c.expect_floating(0);
  c.expect_same_dtype(0, 1);
  const Shape& x = c.shape(0);
  const Shape& w = c.shape(1);
  if (x.rank() < 1 || w.rank() != 2 || x.back() != w[1]) {
    c.fail("x {} and weight {}: x [..., in] and weight [out, in] are wanted", x, w);
  }
  if (c.has(2)) {
    c.expect_same_dtype(0, 2);
    c.expect_shape(2, {w[0]}, "the bias");
  }
  Shape out = x;
  out[x.rank() - 1] = w[0];
  c.output(c.dtype(0), out);
  if (c.attr<LinearAttrs>().activation != Activation::none) {
    c.output(c.dtype(0), out);
  }
}

// Whether activation_grad node `n` is of an activation that reads an output of this layer itself.
bool activates_output(const GradContext& c, NodeId n) {
  const Graph& g = c.graph;
  const auto is_output = [&](ValueId v) { return g.value(v).producer == c.node; };
  const ValueId kept = g.in(n, 1);  // what it read, or what it gave
  const NodeId gave = g.value(kept).producer;
  return is_output(kept) ||
         (gave != kNoNode && g.node(gave).input_count == 1 && is_output(g.in(gave, 0)));
}

// Sets db where the node that made dy can sum it on its way, which spares a pass over dy. A
// residual norm's has been asked to already. An activation's is replaced by one that does, and so
// is dy; nobody else has read it, as it goes to this layer's output and no further.
bool sum_on_the_way(GradContext& c, ValueId& dy, int bias) {
  Graph& g = c.graph;
  const NodeId made = g.value(dy).producer;
  if (made == kNoNode) {
    return false;
  }
  if (g.node(made).op == &residual_norm_grad_op) {
    const auto attrs = g.attr<ResidualNormGradAttrs>(made);
    const bool of_y = g.value(dy).output_index == residual_norm_dy_output(attrs);
    if (attrs.bias && of_y) {
      c.set(bias, g.outputs(made).back());
    }
    return attrs.bias && of_y;
  }
  if (g.node(made).op != &activation_grad_op || !activates_output(c, made)) {
    return false;
  }
  auto attrs = g.attr<ActivationAttrs>(made);
  attrs.column_sum = true;
  const std::array<ValueId, 2> inputs = {g.in(made, 0), g.in(made, 1)};
  const NodeId both = g.emit_node(activation_grad_op, inputs, attrs);
  g.erase(made);
  dy = g.output(both, 0);
  c.set(bias, g.output(both, 1));
  return true;
}

// Whether db of input `bias` is still to be summed, from `dy`.
bool wants_sum(GradContext& c, ValueId& dy, int bias) {
  return c.wants(bias) && !sum_on_the_way(c, dy, bias);
}

// dW and db of inputs `weight` and `bias`; db where it is to be summed.
void set_parameters(GradContext& c, ValueId dy, int weight, int bias, bool sum) {
  Graph& g = c.graph;
  if (!c.wants(weight)) {
    if (sum) {
      c.set(bias, g.emit(bias_grad_op, {dy}));
    }
    return;
  }
  const ValueId d = as_matrix(g, dy);
  const ValueId x = as_matrix(g, c.in(0));
  if (sum) {
    const NodeId both = g.emit_node(linear_dw_op, std::array{d, x});
    c.set(bias, g.output(both, 1));
    c.set(weight, g.output(both, 0));
  } else {
    c.set(weight, matmul(g, d, x, {.transpose_a = true}));
  }
}

void grad_linear(GradContext& c) {
  Graph& g = c.graph;
  const Activation kind = c.attr<LinearAttrs>().activation;
  ValueId dy = c.dout();
  if (kind != Activation::none) {
    if (dy != kNoValue) {
      const ValueId kept = keeps_output(kind) ? c.out(0) : c.out(1);
      dy = g.emit(activation_grad_op, {dy, kept}, ActivationAttrs{kind});
    }
    if (const ValueId direct = c.dout(1); direct != kNoValue) {
      dy = dy == kNoValue ? direct : add(g, dy, direct);
    }
  }
  // The parameters come before dx: they free memory as soon as they are updated.
  const bool sum = wants_sum(c, dy, 2);
  set_parameters(c, dy, 1, 2, sum);
  if (c.wants(0)) {
    const bool row = c.shape(0).rank() == 1;
    const ValueId dx = matmul(g, row ? as_matrix(g, dy) : dy, c.in(1));
    c.set(0, row ? reshape(g, dx, c.shape(0)) : dx);
  }
}

void define_linear(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const ValueId x = g.in(n, 0);
  const bool row = g.shape(x).rank() == 1;
  ValueId y = matmul(g, row ? as_matrix(g, x) : x, g.in(n, 1), {.transpose_b = true});
  if (row) {
    y = reshape(g, y, g.shape(g.output(n, 0)));
  }
  const bool biased = g.node(n).input_count > 2 && g.in(n, 2) != kNoValue;
  if (biased) {
    y = add(g, y, g.in(n, 2));
  }
  const Activation kind = g.attr<LinearAttrs>(n).activation;
  outputs[0] = activation(g, y, kind);
  if (kind != Activation::none) {
    outputs[1] = y;
  }
}

double flops_linear(const Graph& g, NodeId n) {
  const double outputs = static_cast<double>(g.shape(g.output(n, 0)).numel());
  const bool biased = g.node(n).input_count > 2 && g.in(n, 2) != kNoValue;
  const bool activated = g.attr<LinearAttrs>(n).activation != Activation::none;
  return outputs * (2.0 * static_cast<double>(g.shape(g.in(n, 0)).back()) + (biased ? 1 : 0) +
                    (activated ? 1 : 0));
}

// ---- several linear layers of one input

void infer_linear_stack(InferContext& c) {
  const int count = c.attr<LinearStackAttrs>().count;
  if (count < 1 || count > InferContext::kMaxOutputs ||
      (c.input_count() != 1 + count && c.input_count() != 1 + 2 * count)) {
    c.fail(
        "{} inputs and {} layers; x, a weight for each of at most {} layers and a bias for each "
        "or none are wanted",
        c.input_count(), count, InferContext::kMaxOutputs);
  }
  c.expect_floating(0);
  const Shape& x = c.shape(0);
  const Shape& w = c.shape(1);
  if (x.rank() < 1 || w.rank() != 2 || x.back() != w[1]) {
    c.fail("x {} and weight {}: x [..., in] and weights [out, in] are wanted", x, w);
  }
  for (int i = 1; i < c.input_count(); ++i) {
    c.expect_same_dtype(0, i);
    i <= count ? c.expect_shape(i, w, "every weight") : c.expect_shape(i, {w[0]}, "every bias");
  }
  Shape out = x;
  out[x.rank() - 1] = w[0];
  for (int i = 0; i < count; ++i) {
    c.output(c.dtype(0), out);
  }
}

// The gradient of a stack's input, one sum over its layers.
void set_stack_input(GradContext& c, std::span<const ValueId> dys) {
  Graph& g = c.graph;
  const bool row = c.shape(0).rank() == 1;
  ValueId dx = kNoValue;
  for (size_t i = 0; i < dys.size(); ++i) {
    if (dys[i] != kNoValue) {
      const ValueId dy = row ? as_matrix(g, dys[i]) : dys[i];
      dx = matmul(g, dy, c.in(1 + static_cast<int>(i)), {}, dx);
    }
  }
  c.set(0, row ? reshape(g, dx, c.shape(0)) : dx);
}

// dW, and db with `sum`, of some layers of a stack.
void set_stack_parameters(GradContext& c, std::span<const ValueId> dys, std::span<const int> layers,
                          bool sum) {
  Graph& g = c.graph;
  const int all = c.attr<LinearStackAttrs>().count;
  const int count = static_cast<int>(layers.size());
  std::vector<ValueId> inputs;
  for (const int i : layers) {
    inputs.push_back(dys[static_cast<size_t>(i)]);
  }
  inputs.push_back(c.in(0));
  const NodeId n = g.emit_node(linear_stack_dw_op, inputs, LinearStackDwAttrs{count, sum});
  for (int k = 0; k < count; ++k) {
    const int layer = layers[static_cast<size_t>(k)];
    if (sum) {
      c.set(1 + all + layer, g.output(n, count + k));
    }
    c.set(1 + layer, g.output(n, k));
  }
}

void grad_linear_stack(GradContext& c) {
  if (set_packed_gradients(c)) {
    return;
  }
  const int count = c.attr<LinearStackAttrs>().count;
  std::array<ValueId, InferContext::kMaxOutputs> all{};
  const std::span dys = std::span(all).first(static_cast<size_t>(count));
  std::array<std::vector<int>, 2> layers;  // without and with a bias to be summed
  for (int i = 0; i < count; ++i) {
    ValueId& dy = dys[static_cast<size_t>(i)];
    dy = c.dout(i);
    if (dy == kNoValue) {
      continue;
    }
    const bool sum = wants_sum(c, dy, 1 + count + i);
    if (c.wants(1 + i)) {
      layers[sum].push_back(i);
    } else {
      set_parameters(c, dy, 1 + i, 1 + count + i, sum);
    }
  }
  std::array<std::vector<std::span<const int>>, 2> stacks;
  for (const bool sum : {false, true}) {
    const size_t most = InferContext::kMaxOutputs / (sum ? 2 : 1);
    for (std::span<const int> left = layers[sum]; !left.empty();) {
      const auto some = left.first(std::min(left.size(), most));
      left = left.subspan(some.size());
      if (some.size() > 1) {
        stacks[sum].push_back(some);
      } else {
        set_parameters(c, dys[static_cast<size_t>(some[0])], 1 + some[0], 1 + count + some[0], sum);
      }
    }
  }
  // Stacks come behind dx: their dys die at one node then, and can lie next to one another.
  if (c.wants(0)) {
    set_stack_input(c, dys);
  }
  for (const bool sum : {false, true}) {
    for (const std::span<const int> some : stacks[sum]) {
      set_stack_parameters(c, dys, some, sum);
    }
  }
}

void define_linear_stack(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const int count = g.attr<LinearStackAttrs>(n).count;
  const bool biased = g.node(n).input_count > 1 + count;
  for (int i = 0; i < count; ++i) {
    const ValueId bias = biased ? g.in(n, 1 + count + i) : kNoValue;
    outputs[static_cast<size_t>(i)] = linear(g, g.in(n, 0), g.in(n, 1 + i), bias).y;
  }
}

double flops_linear_stack(const Graph& g, NodeId n) {
  const int count = g.attr<LinearStackAttrs>(n).count;
  const bool biased = g.node(n).input_count > 1 + count;
  return count * static_cast<double>(g.shape(g.output(n, 0)).numel()) *
         (2.0 * static_cast<double>(g.shape(g.in(n, 0)).back()) + (biased ? 1 : 0));
}

}  // namespace

const OpDef matmul_op = {.name = "matmul",
                         .infer = infer_matmul,
                         .grad = grad_matmul,
                         .flops = flops_matmul,
                         .workspace = workspace_matmul,
                         .aliases = {{{Alias::in_place, 0, 2}}},
                         .cpu = matmul_cpu};
const OpDef linear_op = {.name = "linear",
                         .infer = infer_linear,
                         .grad = grad_linear,
                         .define = define_linear,
                         .flops = flops_linear,
                         .workspace = workspace_product,
                         .cpu = linear_cpu};
const OpDef linear_stack_op = {.name = "linear_stack",
                               .infer = infer_linear_stack,
                               .grad = grad_linear_stack,
                               .define = define_linear_stack,
                               .flops = flops_linear_stack,
                               .workspace = workspace_product,  // the layers take turns in it
                               .cpu = linear_stack_cpu,
                               .adjacent_outputs = true};
ValueId as_matrix(Graph& graph, ValueId x) {
  const Shape& shape = graph.shape(x);
  return shape.rank() == 2 ? x
                           : reshape(graph, x, {shape.product(0, shape.rank() - 1), shape.back()});
}

ValueId matmul(Graph& graph, ValueId a, ValueId b, const MatmulAttrs& attrs, ValueId addend) {
  return addend == kNoValue ? graph.emit(matmul_op, {a, b}, attrs)
                            : graph.emit(matmul_op, {a, b, addend}, attrs);
}

LinearOut linear(Graph& graph, ValueId x, ValueId weight, ValueId bias, Activation fused) {
  const std::array<ValueId, 3> inputs = {x, weight, bias};
  const NodeId n = graph.emit_node(linear_op, inputs, LinearAttrs{fused});
  return {graph.output(n, 0), fused == Activation::none ? kNoValue : graph.output(n, 1)};
}

std::vector<ValueId> linear_stack(Graph& graph, ValueId x, std::span<const ValueId> weights,
                                  std::span<const ValueId> biases) {
  std::vector<ValueId> inputs = {x};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  inputs.insert(inputs.end(), biases.begin(), biases.end());
  const int count = static_cast<int>(weights.size());
  const NodeId n = graph.emit_node(linear_stack_op, inputs, LinearStackAttrs{count});
  const auto outputs = graph.outputs(n);
  return {outputs.begin(), outputs.end()};
}

StackedLinear::StackedLinear(const KernelArgs& stack, size_t i) : args_(stack) {
  const size_t count = stack.out.size();
  const bool biased = stack.in.size() > 1 + count;
  in_ = {stack.in[0], stack.in[1 + i], biased ? stack.in[1 + count + i] : TensorRef{}};
  args_.in = in_;
  args_.out = stack.out.subspan(i, 1);
  args_.attrs = &attrs_;
}

}  // namespace lithe
