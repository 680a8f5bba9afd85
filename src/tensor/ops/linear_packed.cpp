#include "tensor/ops/linear_packed.h"

#include <algorithm>
#include <array>
#include <vector>

#include "tensor/ops/attention.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/product_workspace.h"

namespace lithe {
namespace {

ValueId layer_of(Graph& g, ValueId dy, int layer, int64_t out) {
  return slice(g, dy, -1, layer * out, (layer + 1) * out);
}

bool is_half(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

void expect_packed(InferContext& c, int count) {
  if (count < 1 || count > InferContext::kMaxOutputs) {
    c.fail("{} layers; from 1 to {} are wanted", count, InferContext::kMaxOutputs);
  }
  c.expect_floating(0);
  const Shape& dy = c.shape(0);
  if (dy.rank() < 2 || dy.back() % count != 0) {
    c.fail("dy {} of {} layers: [..., {} * out] with leading dimensions is wanted", dy, count,
           count);
  }
}

// ---- dx

void infer_packed_dx(InferContext& c) {
  const int count = c.attr<LinearPackedDxAttrs>().count;
  expect_packed(c, count);
  if (c.input_count() != 2 + count) {
    c.fail("{} inputs and {} layers; dy, an addend or none and a weight for each are wanted",
           c.input_count(), count);
  }
  Shape dx = c.shape(0);
  const int64_t out = dx.back() / count;
  const Shape& w = c.shape(2);
  if (w.rank() != 2 || w[0] != out) {
    c.fail("weight {} of {} layers and dy {}: [{}, in] is wanted", w, count, dx, out);
  }
  for (int i = 0; i < count; ++i) {
    c.expect_same_dtype(0, 2 + i);
    c.expect_shape(2 + i, w, "every weight");
  }
  dx[dx.rank() - 1] = w[1];
  if (c.has(1)) {
    c.expect_same_dtype(0, 1);
    c.expect_shape(1, dx, "the addend");
  }
  c.output(c.dtype(0), dx);
}

void define_packed_dx(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const int count = g.attr<LinearPackedDxAttrs>(n).count;
  const ValueId dy = g.in(n, 0);
  const int64_t out = g.shape(dy).back() / count;
  ValueId dx = g.in(n, 1);
  for (int i = 0; i < count; ++i) {
    dx = matmul(g, layer_of(g, dy, i, out), g.in(n, 2 + i), {}, dx);
  }
  outputs[0] = dx;
}

double flops_packed_dx(const Graph& g, NodeId n) {
  return static_cast<double>(g.shape(g.output(n, 0)).numel()) *
         (2.0 * static_cast<double>(g.shape(g.in(n, 0)).back()) + (g.in(n, 1) != kNoValue ? 1 : 0));
}

// On the CPU dy, one weight after the other and dx in fp32.
int64_t workspace_packed_dx(const Graph& g, NodeId n, DeviceKind device) {
  if (device == DeviceKind::cuda) {
    return workspace_split(g, n);
  }
  const ValueId dy = g.in(n, 0);
  const int64_t elements =
      g.shape(dy).numel() + g.shape(g.in(n, 2)).numel() + g.shape(g.output(n, 0)).numel();
  return is_half(g.dtype(dy)) ? checked_mul(elements, int64_t{sizeof(float)}) : 0;
}

// ---- dW

void infer_packed_dw(InferContext& c) {
  c.expect_inputs(2);
  const auto attrs = c.attr<LinearPackedDwAttrs>();
  expect_packed(c, attrs.count);
  const Shape& dy = c.shape(0);
  const int64_t out = dy.back() / attrs.count;
  if (attrs.weights >> attrs.count != 0 || attrs.weights == 0) {
    c.fail("the weights {:#b} of {} layers: some of them are wanted", attrs.weights, attrs.count);
  }
  c.expect_same_dtype(0, 1);
  const Shape& x = c.shape(1);
  if (x.rank() != dy.rank() || !std::equal(dy.begin(), dy.end() - 1, x.begin())) {
    c.fail("dy {} and x {}: the same leading dimensions are wanted", dy, x);
  }
  for (int i = 0; i < attrs.wanted(); ++i) {
    c.output(c.dtype(0), {out, x.back()});
  }
}

void define_packed_dw(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const auto attrs = g.attr<LinearPackedDwAttrs>(n);
  const ValueId dy = as_matrix(g, g.in(n, 0));
  const ValueId x = as_matrix(g, g.in(n, 1));
  const int64_t out = g.shape(dy).back() / attrs.count;
  size_t next = 0;
  for (int i = 0; i < attrs.count; ++i) {
    if (attrs.wants(i)) {
      outputs[next++] = matmul(g, layer_of(g, dy, i, out), x, {.transpose_a = true});
    }
  }
}

double flops_packed_dw(const Graph& g, NodeId n) {
  const auto attrs = g.attr<LinearPackedDwAttrs>(n);
  const Shape& dy = g.shape(g.in(n, 0));
  return 2.0 * static_cast<double>(dy.product(0, dy.rank() - 1)) * attrs.wanted() *
         static_cast<double>(g.shape(g.output(n, 0)).numel());
}

// On the CPU dy, x and one dW in fp32.
int64_t workspace_packed_dw(const Graph& g, NodeId n, DeviceKind device) {
  const int wanted = g.attr<LinearPackedDwAttrs>(n).wanted();
  return device == DeviceKind::cuda
             ? std::min(checked_mul(wanted, workspace_split(g, n)), kMostSplit)
             : workspace_product(g, n, device);
}

// ---- the gradient rule

// Where the dys of a stack come from: a node of attention's gradients, and the reshapes between.
struct Source {
  NodeId attention = kNoNode;
  std::vector<NodeId> views;
};

// dy i is output i of the attention; nobody else reads it, or what lies between.
Source find_source(const Graph& g, std::span<const ValueId> dys) {
  Source source;
  std::vector<ValueId> passed;
  for (size_t i = 0; i < dys.size(); ++i) {
    if (dys[i] == kNoValue) {
      return {};
    }
    ValueId v = dys[i];
    passed.push_back(v);
    NodeId made = g.value(v).producer;
    while (made != kNoNode && g.node(made).op == &reshape_op) {
      source.views.push_back(made);
      v = g.in(made, 0);
      passed.push_back(v);
      made = g.value(v).producer;
    }
    if (made == kNoNode || g.node(made).op != &attention_grad_op ||
        (i > 0 && made != source.attention) || g.value(v).output_index != static_cast<int>(i)) {
      return {};
    }
    source.attention = made;
  }
  const auto is_one_of = [](const auto& all, auto one) {
    return std::find(all.begin(), all.end(), one) != all.end();
  };
  for (const ValueId v : passed) {
    if (g.value(v).is_output || g.value(v).is_gradient) {
      return {};
    }
  }
  // Backward has just come from there: only a few nodes follow.
  for (NodeId n = g.next(source.attention); n != kNoNode; n = g.next(n)) {
    for (const ValueId v : g.inputs(n)) {
      if (is_one_of(passed, v) && !is_one_of(source.views, n)) {
        return {};
      }
    }
  }
  return source;
}

// Whether a row of the stack's outputs is a token's q, k or v, of as many heads each.
bool packs(const Graph& g, NodeId attention, const Shape& dy) {
  const auto attrs = g.attr<AttentionGradAttrs>(attention);
  const Shape& q = g.shape(g.in(attention, 0));
  return attrs.dq && attrs.dk && attrs.dv && !attrs.packed && q == g.shape(g.in(attention, 1)) &&
         dy.rank() >= 2 && dy.back() == q[2] * q[3];
}

// Another node in the source's place, of packed gradients and, with `bias_sums`, their sums.
NodeId pack(Graph& g, const Source& source, bool bias_sums) {
  const NodeId made = source.attention;
  auto attrs = g.attr<AttentionGradAttrs>(made);
  attrs.packed = true;
  attrs.bias_sums = bias_sums;
  const auto read = g.inputs(made);
  const std::vector<ValueId> inputs(read.begin(), read.end());
  const ScopeId scope = g.current_scope();
  g.set_scope(g.node(made).scope);
  const NodeId packed = g.emit_node(attention_grad_op, inputs, attrs);
  g.set_scope(scope);
  for (const NodeId view : source.views) {
    g.erase(view);
  }
  g.erase(made);
  return packed;
}

}  // namespace

const OpDef linear_packed_dx_op = {.name = "linear_packed_dx",
                                   .infer = infer_packed_dx,
                                   .define = define_packed_dx,
                                   .flops = flops_packed_dx,
                                   .workspace = workspace_packed_dx,
                                   .aliases = {{{Alias::in_place, 0, 1}}},
                                   .cpu = linear_packed_dx_cpu};
const OpDef linear_packed_dw_op = {.name = "linear_packed_dw",
                                   .infer = infer_packed_dw,
                                   .define = define_packed_dw,
                                   .flops = flops_packed_dw,
                                   .workspace = workspace_packed_dw,
                                   .cpu = linear_packed_dw_cpu,
                                   .adjacent_outputs = true};

ValueId linear_packed_dx(Graph& graph, ValueId dy, std::span<const ValueId> weights,
                         ValueId addend) {
  std::vector<ValueId> inputs = {dy, addend};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  const LinearPackedDxAttrs attrs{static_cast<int>(weights.size())};
  return graph.output(graph.emit_node(linear_packed_dx_op, inputs, attrs), 0);
}

bool set_packed_gradients(GradContext& c) {
  constexpr int kCount = 3;
  Graph& g = c.graph;
  if (c.attr<LinearStackAttrs>().count != kCount) {
    return false;
  }
  LinearPackedDwAttrs attrs{.count = kCount};
  int biases = 0;
  for (int i = 0; i < kCount; ++i) {
    attrs.weights |= c.wants(1 + i) ? 1u << i : 0u;
    biases += c.wants(1 + kCount + i) ? 1 : 0;
  }
  if (biases != 0 && biases != kCount) {
    return false;
  }
  const std::array<ValueId, kCount> dys = {c.dout(0), c.dout(1), c.dout(2)};
  const Source source = find_source(g, dys);
  Shape shape = g.shape(c.out(0));
  if (source.attention == kNoNode || !packs(g, source.attention, shape)) {
    return false;
  }
  const NodeId packed = pack(g, source, biases > 0);
  for (int i = 0; i < biases; ++i) {
    c.set(1 + kCount + i, g.output(packed, 1 + i));
  }
  if (attrs.weights == 0 && !c.wants(0)) {
    return true;
  }
  shape[shape.rank() - 1] *= kCount;
  const ValueId dy = reshape(g, g.output(packed, 0), shape);
  // The weights first: x need not outlive them.
  if (attrs.weights != 0) {
    const NodeId n = g.emit_node(linear_packed_dw_op, std::array{dy, c.in(0)}, attrs);
    int output = 0;
    for (int i = 0; i < kCount; ++i) {
      if (attrs.wants(i)) {
        c.set(1 + i, g.output(n, output++));
      }
    }
  }
  if (c.wants(0)) {
    const std::array<ValueId, kCount> weights = {c.in(1), c.in(2), c.in(3)};
    c.set(0, linear_packed_dx(g, dy, weights));
  }
  return true;
}

}  // namespace lithe
