#include "tensor/ops/attention.h"

#include <omp.h>

#include <algorithm>

#include "tensor/ops/attention_blocks.h"
#include "tensor/ops/attention_shapes.h"
#include "tensor/ops/attention_tiles.h"
#include "tensor/ops/column_sum.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

namespace lithe {
namespace {

DType statistics_dtype(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

Shape statistics_shape(const Shape& q) { return {q[0], q[2], q[1]}; }

void expect_operands(InferContext& c, const AttentionAttrs& attrs, int mask, int rng) {
  c.expect_floating(0);
  c.expect_same_dtype(0, 1);
  c.expect_same_dtype(0, 2);
  expect_attention_shapes(c, attrs, mask, rng);
}

void infer_attention(InferContext& c) {
  c.expect_inputs(3, 5);
  expect_operands(c, c.attr<AttentionAttrs>(), 3, 4);
  c.output(c.dtype(0), c.shape(0));
  c.output(statistics_dtype(c.dtype(0)), statistics_shape(c.shape(0)));
}

void declare_packed(InferContext& c, const AttentionGradAttrs& attrs, DType dtype) {
  const Shape& q = c.shape(0);
  const Shape& k = c.shape(1);
  if (!attrs.dq || !attrs.dk || !attrs.dv) {
    c.fail("packed gradients are dq, dk and dv; dq {}, dk {}, dv {} are asked for", attrs.dq,
           attrs.dk, attrs.dv);
  }
  if (q != k) {
    c.fail("packed gradients need one row each of q, k and v a token: q {} and k {} differ", q, k);
  }
  c.output(dtype, {q[0], q[1], 3, q[2], q[3]});
  for (int i = 0; attrs.bias_sums && i < 3; ++i) {
    c.output(dtype, {q[2] * q[3]});
  }
}

void infer_attention_grad(InferContext& c) {
  c.expect_inputs(3, 8);
  const auto attrs = c.attr<AttentionGradAttrs>();
  expect_operands(c, attrs.forward, 6, 7);
  expect_attention_grad(c, attrs, c.dtype(0));
}

ValueId optional_input(const Graph& g, NodeId n, int i) {
  return i < g.node(n).input_count ? g.in(n, i) : kNoValue;
}

void grad_attention(GradContext& c) {
  Graph& g = c.graph;
  const bool any = c.wants(0) || c.wants(1) || c.wants(2);
  if (c.dout() == kNoValue || !any) {
    return;
  }
  const AttentionGradAttrs attrs{c.attr<AttentionAttrs>(), c.wants(0), c.wants(1), c.wants(2)};
  const std::array<ValueId, 8> inputs = {c.in(0),
                                         c.in(1),
                                         c.in(2),
                                         c.out(0),
                                         c.out(1),
                                         c.dout(),
                                         optional_input(g, c.node, 3),
                                         optional_input(g, c.node, 4)};
  const NodeId n = g.emit_node(attention_grad_op, inputs, attrs);
  int output = 0;
  for (int i = 0; i < 3; ++i) {
    if (c.wants(i)) {
      c.set(i, g.output(n, output++));
    }
  }
}

// k or v [B, S, K, D] as [B, N, S, D], each head repeated for the queries that share it.
ValueId by_head(Graph& g, ValueId x, int64_t heads) {
  const Shape shape = g.shape(x);
  if (shape[2] != heads) {
    const int64_t group = heads / shape[2];
    x = reshape(g, x, {shape[0], shape[1], shape[2], 1, shape[3]});
    x = broadcast_to(g, x, {shape[0], shape[1], shape[2], group, shape[3]});
    x = reshape(g, x, {shape[0], shape[1], heads, shape[3]});
  }
  return transpose(g, x, {0, 2, 1, 3});
}

void define_attention(Graph& g, NodeId n, std::span<ValueId> outputs) {
  const auto attrs = g.attr<AttentionAttrs>(n);
  const ValueId mask = optional_input(g, n, 3);
  const ValueId rng = optional_input(g, n, 4);
  const ValueId in_v = g.in(n, 2);
  const int64_t heads = g.shape(g.in(n, 0))[2];
  const ValueId k = by_head(g, g.in(n, 1), heads);
  const ValueId q = transpose(g, g.in(n, 0), {0, 2, 1, 3});
  ValueId p = matmul(g, q, k, {.transpose_b = true});
  p = softmax(g, p, {.scale = attrs.scale, .causal = attrs.causal}, mask);
  if (attrs.dropout > 0) {
    p = dropout(g, p, rng,
                {.p = attrs.dropout, .key = attrs.dropout_key, .bits = kAttentionDropoutBits});
  }
  const ValueId out = matmul(g, p, by_head(g, in_v, heads));
  outputs[0] = transpose(g, out, {0, 2, 1, 3});
}

// Pairs of a query and a key that it sees.
double visible_pairs(const Shape& q, const Shape& k, bool causal) {
  const double t = static_cast<double>(q[1]);
  const double s = static_cast<double>(k[1]);
  double pairs = t * s;
  if (causal) {
    pairs = t <= s ? t * (s - t) + t * (t + 1) / 2 : s * (s + 1) / 2;
  }
  return pairs * static_cast<double>(q[0]) * static_cast<double>(q[2]);
}

double flops(const Graph& g, NodeId n) {
  const Shape& q = g.shape(g.in(n, 0));
  const double pairs = visible_pairs(q, g.shape(g.in(n, 1)), g.attr<AttentionAttrs>(n).causal);
  return pairs * (4.0 * static_cast<double>(q[3]) + 5.0);  // two products and the softmax
}

double flops_grad(const Graph& g, NodeId n) {
  return attention_grad_flops(g.attr<AttentionGradAttrs>(n), g.shape(g.in(n, 0)),
                              g.shape(g.in(n, 1)));
}

AttentionTiles tiles_of(const Shape& q, const Shape& k, DType dtype) {
  return {q, k, dtype == DType::f64 ? tile::kLanes<double> : tile::kLanes<float>};
}

int64_t workspace(const Graph& g, NodeId n, DeviceKind device) {
  if (device != DeviceKind::cpu) {
    return 0;
  }
  const DType dtype = g.dtype(g.in(n, 0));
  const int64_t size = dtype == DType::f64 ? 8 : 4;
  const AttentionTiles tiles = tiles_of(g.shape(g.in(n, 0)), g.shape(g.in(n, 1)), dtype);
  return checked_mul(omp_get_max_threads(), tiles.forward_elements() * size);
}

int64_t workspace_grad(const Graph& g, NodeId n, DeviceKind device) {
  return attention_grad_workspace(g.attr<AttentionGradAttrs>(n), g.shape(g.in(n, 0)),
                                  g.shape(g.in(n, 1)), g.dtype(g.in(n, 0)),
                                  g.in(n, kAttentionGradOutput) != kNoValue, device);
}

}  // namespace

void expect_attention_shapes(InferContext& c, const AttentionAttrs& attrs, int mask, int rng) {
  const Shape& q = c.shape(0);
  const Shape& k = c.shape(1);
  if (q.rank() != 4 || k.rank() != 4 || q[0] != k[0] || q[3] != k[3]) {
    c.fail("q {} and k {}: q [B, T, N, D] and k [B, S, K, D] are wanted", q, k);
  }
  c.expect_shape(2, k, "v");
  if (q[3] < 1) {
    c.fail("q {} has heads of no elements", q);
  }
  if (k[2] < 1 || q[2] % k[2] != 0) {
    c.fail("{} query heads do not divide over {} key heads", q[2], k[2]);
  }
  if (c.has(mask)) {
    if (c.dtype(mask) != DType::boolean) {
      c.fail("key_mask is {}; boolean is wanted, true where a key is visible",
             dtype_name(c.dtype(mask)));
    }
    c.expect_shape(mask, {k[0], k[1]}, "key_mask");
  }
  if (!(attrs.dropout >= 0 && attrs.dropout < 1)) {
    c.fail("dropout {}: a probability in [0, 1) is wanted", attrs.dropout);
  }
  if (attrs.dropout > 0) {
    if (!c.has(rng)) {
      c.fail("dropout {} needs rng, an int64 [2] input (seed, step)", attrs.dropout);
    }
    if (c.dtype(rng) != DType::i64) {
      c.fail("rng is {}; int64 is wanted", dtype_name(c.dtype(rng)));
    }
    c.expect_shape(rng, {2}, "rng");
  }
}

void expect_attention_grad(InferContext& c, const AttentionGradAttrs& attrs, DType dtype) {
  for (const int i : {4, 5}) {
    if (!c.has(i)) {
      c.fail("input {} is missing; it needs the log-sum-exp and dout", i);
    }
  }
  for (const int i : {3, 5}) {
    if (c.has(i) && c.dtype(i) != dtype) {
      c.fail("{} is {}; {} is wanted", i == 3 ? "out" : "dout", dtype_name(c.dtype(i)),
             dtype_name(dtype));
    }
  }
  if (c.has(3)) {
    c.expect_shape(3, c.shape(0), "out");
  }
  c.expect_shape(4, statistics_shape(c.shape(0)), "the log-sum-exp");
  c.expect_shape(5, c.shape(0), "dout");
  if (attrs.packed) {
    declare_packed(c, attrs, dtype);
    return;
  }
  if (attrs.bias_sums) {
    c.fail("bias sums are of packed gradients, which are not asked for");
  }
  if (attrs.dq) {
    c.output(dtype, c.shape(0));
  }
  if (attrs.dk) {
    c.output(dtype, c.shape(1));
  }
  if (attrs.dv) {
    c.output(dtype, c.shape(1));
  }
}

double attention_grad_flops(const AttentionGradAttrs& attrs, const Shape& q, const Shape& k) {
  const int products = 2 + (attrs.dq ? 1 : 0) + (attrs.dk ? 1 : 0) + (attrs.dv ? 1 : 0);
  const double sums = attrs.bias_sums ? 3.0 * static_cast<double>(q.numel()) : 0;
  return visible_pairs(q, k, attrs.forward.causal) *
             (2.0 * products * static_cast<double>(q[3]) + 8.0) +
         sums;
}

int64_t attention_grad_workspace(const AttentionGradAttrs& attrs, const Shape& q, const Shape& k,
                                 DType dtype, bool has_out, DeviceKind device) {
  // A walk of its own for the sums of biases, where what the gradients needed is free again.
  const int64_t walk =
      attrs.bias_sums ? byte_size(statistics_dtype(dtype), {row_chunks(q[0] * q[1]), 3, q[2], q[3]})
                      : 0;
  if (device == DeviceKind::cuda) {
    if (!attention_blocks::on_tensor_cores(dtype, q[3], attrs.forward.scale)) {
      // dO · O, as many as the log-sum-exp.
      return std::max(byte_size(statistics_dtype(dtype), statistics_shape(q)), walk);
    }
    if (!attention_blocks::on_warpgroups(dtype, q[3])) {
      return std::max(attention_blocks::BackwardSplit(q, k, dtype, attrs.dq).workspace_bytes(),
                      walk);
    }
    const bool queries_first = attrs.dq || !has_out;
    const bool shares_mask = attrs.forward.dropout > 0 && queries_first && (attrs.dk || attrs.dv);
    return attention_blocks::statistics_bytes(q) + attention_blocks::mask_bytes(q, k, shares_mask) +
           attention_blocks::bias_sums_bytes(q, attrs.bias_sums);
  }
  const AttentionTiles tiles = tiles_of(q, k, dtype);
  const int64_t size = dtype == DType::f64 ? 8 : 4;
  const bool half = dtype == DType::bf16 || dtype == DType::f16;
  int64_t shared = half && attrs.dq ? tiles.wide_dq_elements() : 0;
  shared += has_out ? 0 : tiles.row_sum_elements();
  const int64_t own =
      checked_mul(checked_add(shared, omp_get_max_threads() * tiles.backward_elements()), size);
  return std::max(own, walk);
}

const OpDef attention_op = {.name = "attention",
                            .infer = infer_attention,
                            .grad = grad_attention,
                            .define = define_attention,
                            .flops = flops,
                            .workspace = workspace,
                            .cpu = attention_cpu};
const OpDef attention_grad_op = {.name = "attention_grad",
                                 .infer = infer_attention_grad,
                                 .flops = flops_grad,
                                 .workspace = workspace_grad,
                                 .cpu = attention_grad_cpu,
                                 .adjacent_outputs = true};

ValueId attention(Graph& graph, ValueId q, ValueId k, ValueId v, const AttentionAttrs& attrs,
                  ValueId key_mask, ValueId rng) {
  // Without dropout the random numbers are not read, so the graph does not hold on to them.
  const ValueId drawn = attrs.dropout > 0 ? rng : kNoValue;
  return graph.emit(attention_op, {q, k, v, key_mask, drawn}, attrs);
}

}  // namespace lithe
