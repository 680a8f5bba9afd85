#include "tensor/ops/matmul.h"

#include "tensor/ops/column_sum.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/reduce.h"

namespace lithe {
namespace {

// ---- matmul

void infer_matmul(InferContext& c) {
  c.expect_inputs(2);
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
  c.output(c.dtype(0), out);
}

// x [..., n] as a matrix.
ValueId as_matrix(Graph& g, ValueId x) {
  const Shape& shape = g.shape(x);
  return shape.rank() == 2 ? x : reshape(g, x, {shape.product(0, shape.rank() - 1), shape.back()});
}

void grad_matmul(GradContext& c) {
  Graph& g = c.graph;
  const auto attrs = c.attr<MatmulAttrs>();
  const bool ta = attrs.transpose_a;
  const bool tb = attrs.transpose_b;
  const ValueId dy = c.dout();
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
  return 2.0 * static_cast<double>(g.shape(g.output(n, 0)).numel()) * static_cast<double>(k);
}

// On CUDA partial products, for sums that the library splits; it makes use of 32 MiB at most.
int64_t workspace_split(const Graph& g, NodeId n) {
  constexpr int64_t kMost = int64_t{32} << 20;
  constexpr int64_t kBytesOfResult = 64 * int64_t{sizeof(float)};  // of 64 parts
  const int64_t results = g.shape(g.output(n, 0)).numel();
  return results > kMost / kBytesOfResult ? kMost : results * kBytesOfResult;
}

// On the CPU the operands and the product in fp32, where they are stored in 16 bits.
int64_t workspace_product(const Graph& g, NodeId n, DeviceKind device) {
  if (device == DeviceKind::cuda) {
    return workspace_split(g, n);
  }
  const DType dtype = g.dtype(g.in(n, 0));
  if (dtype != DType::bf16 && dtype != DType::f16) {
    return 0;
  }
  const int64_t elements =
      g.shape(g.in(n, 0)).numel() + g.shape(g.in(n, 1)).numel() + g.shape(g.output(n, 0)).numel();
  return checked_mul(elements, int64_t{sizeof(float)});
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
  // The bias first: like the weight it frees memory as soon as it is updated.
  if (c.wants(2)) {
    c.set(2, g.emit(bias_grad_op, {dy}));
  }
  if (c.wants(1)) {
    c.set(1, matmul(g, as_matrix(g, dy), as_matrix(g, c.in(0)), {.transpose_a = true}));
  }
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
  const int64_t size = g.dtype(g.in(n, 0)) == DType::f64 ? 8 : 4;
  return row_chunks(dy.product(0, dy.rank() - 1)) * dy.back() * size;
}

}  // namespace

const OpDef matmul_op = {.name = "matmul",
                         .infer = infer_matmul,
                         .grad = grad_matmul,
                         .flops = flops_matmul,
                         .workspace = workspace_product,
                         .cpu = matmul_cpu};
const OpDef linear_op = {.name = "linear",
                         .infer = infer_linear,
                         .grad = grad_linear,
                         .define = define_linear,
                         .flops = flops_linear,
                         .workspace = workspace_product,
                         .cpu = linear_cpu};
const OpDef bias_grad_op = {.name = "bias_grad",
                            .infer = infer_bias_grad,
                            .flops = flops_bias_grad,
                            .workspace = workspace_bias_grad,
                            .cpu = bias_grad_cpu};

ValueId matmul(Graph& graph, ValueId a, ValueId b, const MatmulAttrs& attrs) {
  return graph.emit(matmul_op, {a, b}, attrs);
}

LinearOut linear(Graph& graph, ValueId x, ValueId weight, ValueId bias, Activation fused) {
  const std::array<ValueId, 3> inputs = {x, weight, bias};
  const NodeId n = graph.emit_node(linear_op, inputs, LinearAttrs{fused});
  return {graph.output(n, 0), fused == Activation::none ? kNoValue : graph.output(n, 1)};
}

}  // namespace lithe
