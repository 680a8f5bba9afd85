#include "tensor/ops/elementwise.h"

#include "tensor/ops/reduce.h"

namespace lithe {
namespace {

void infer_binary(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  c.expect_same_dtype(0, 1);
  c.output(c.dtype(0), broadcast(c.shape(0), c.shape(1), "broadcast"));
}

void infer_unary(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  c.output(c.dtype(0), c.shape(0));
}

void infer_fill(InferContext& c) {
  c.expect_inputs(0);
  const auto attrs = c.attr<FillAttrs>();
  c.output(attrs.dtype, attrs.shape);
}

void infer_cast(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  const DType to = c.attr<CastAttrs>().to;
  if (!is_floating(to)) {
    c.fail("cannot cast {} to {}; floating types only", dtype_name(c.dtype(0)), dtype_name(to));
  }
  c.output(to, c.shape(0));
}

// The gradient of a broadcast operand is the sum over the dimensions it was repeated along.
void set_reduced(GradContext& c, int i, ValueId grad) {
  c.set(i, sum_to(c.graph, grad, c.shape(i)));
}

void grad_add(GradContext& c) {
  for (int i : {0, 1}) {
    if (c.wants(i)) {
      set_reduced(c, i, c.dout());
    }
  }
}

void grad_sub(GradContext& c) {
  if (c.wants(0)) {
    set_reduced(c, 0, c.dout());
  }
  if (c.wants(1)) {
    c.set(1, scale(c.graph, sum_to(c.graph, c.dout(), c.shape(1)), -1));
  }
}

void grad_mul(GradContext& c) {
  for (int i : {0, 1}) {
    if (c.wants(i)) {
      set_reduced(c, i, mul(c.graph, c.dout(), c.in(1 - i)));
    }
  }
}

void grad_div(GradContext& c) {
  // d(a/b) = da/b - (a/b) db/b; the quotient is kept instead of a.
  const bool both = c.wants(0) || c.wants(1);
  const ValueId da = both ? div(c.graph, c.dout(), c.in(1)) : kNoValue;
  if (c.wants(0)) {
    set_reduced(c, 0, da);
  }
  if (c.wants(1)) {
    set_reduced(c, 1, scale(c.graph, mul(c.graph, da, c.out()), -1));
  }
}

void grad_scale(GradContext& c) {
  if (c.wants(0)) {
    c.set(0, scale(c.graph, c.dout(), c.attr<ScaleAttrs>().factor));
  }
}

void grad_cast(GradContext& c) {
  if (c.wants(0)) {
    c.set(0, cast(c.graph, c.dout(), c.graph.dtype(c.in(0))));
  }
}

constexpr AliasRules kEither = {{{Alias::in_place, 0, 0}, {Alias::in_place, 0, 1}}};
constexpr AliasRules kFirst = {{{Alias::in_place, 0, 0}}};

}  // namespace

const OpDef add_op = {
    .name = "add", .infer = infer_binary, .grad = grad_add, .aliases = kEither, .cpu = binary_cpu};
const OpDef sub_op = {
    .name = "sub", .infer = infer_binary, .grad = grad_sub, .aliases = kEither, .cpu = binary_cpu};
const OpDef mul_op = {
    .name = "mul", .infer = infer_binary, .grad = grad_mul, .aliases = kEither, .cpu = binary_cpu};
const OpDef div_op = {
    .name = "div", .infer = infer_binary, .grad = grad_div, .aliases = kEither, .cpu = binary_cpu};
const OpDef scale_op = {
    .name = "scale", .infer = infer_unary, .grad = grad_scale, .aliases = kFirst, .cpu = scale_cpu};
const OpDef fill_op = {.name = "fill", .infer = infer_fill, .cpu = fill_cpu};
const OpDef cast_op = {.name = "cast", .infer = infer_cast, .grad = grad_cast, .cpu = cast_cpu};

ValueId add(Graph& g, ValueId a, ValueId b) {
  return g.emit(add_op, {a, b}, BinaryAttrs{Binary::add});
}
ValueId sub(Graph& g, ValueId a, ValueId b) {
  return g.emit(sub_op, {a, b}, BinaryAttrs{Binary::sub});
}
ValueId mul(Graph& g, ValueId a, ValueId b) {
  return g.emit(mul_op, {a, b}, BinaryAttrs{Binary::mul});
}
ValueId div(Graph& g, ValueId a, ValueId b) {
  return g.emit(div_op, {a, b}, BinaryAttrs{Binary::div});
}
ValueId scale(Graph& g, ValueId x, double factor) {
  return factor == 1 ? x : g.emit(scale_op, {x}, ScaleAttrs{factor});
}
ValueId fill(Graph& g, DType dtype, const Shape& shape, double value) {
  return g.emit(fill_op, {}, FillAttrs{value, dtype, shape});
}
ValueId cast(Graph& g, ValueId x, DType to) {
  return g.dtype(x) == to ? x : g.emit(cast_op, {x}, CastAttrs{to});
}

std::vector<ParameterGradient> gradients(Graph& graph, ValueId loss, double seed,
                                         std::span<const ValueId> wanted) {
  const Phase saved = graph.phase();
  graph.set_phase(Phase::backward);
  const ValueId start = fill(graph, graph.dtype(loss), graph.shape(loss), seed);
  graph.set_phase(saved);
  return build_gradients(graph, loss, start, wanted, add_op);
}

}  // namespace lithe
