#include "tensor/ops/quantize.h"

namespace lithe {
namespace {

void expect_format(const InferContext& c) {
  const auto attrs = c.attr<QuantizeAttrs>();
  if (attrs.bits != 4 && attrs.bits != 8) {
    c.fail("{} bits; 4 or 8 are wanted", attrs.bits);
  }
  if (attrs.group < 0) {
    c.fail("groups of {} elements; give 1 or more, or 0 for whole rows", attrs.group);
  }
  if (attrs.scale != DType::f32 && attrs.scale != DType::bf16 && attrs.scale != DType::f16) {
    c.fail("scales of {}; fp32, bf16 or fp16 are wanted", dtype_name(attrs.scale));
  }
  if (c.shape(0).rank() < 1) {
    c.fail("input 0 is a scalar; [..., C] is wanted");
  }
}

void infer_encode(InferContext& c) {
  c.expect_inputs(1, 2);
  c.expect_floating(0);
  expect_format(c);
  const auto attrs = c.attr<QuantizeAttrs>();
  if (attrs.stochastic) {
    if (!c.has(1)) {
      c.fail("stochastic rounding needs rng, an int64 [2] input (seed, step)");
    }
    if (c.dtype(1) != DType::i64) {
      c.fail("rng is {}; int64 [2] (seed, step) is wanted", dtype_name(c.dtype(1)));
    }
    c.expect_shape(1, {2}, "rng");
  }
  c.output(quantize_dtype(attrs), c.shape(0));
  c.output(attrs.scale, quantize_scales_shape(c.shape(0), attrs));
}

void infer_decode(InferContext& c) {
  c.expect_inputs(2);
  expect_format(c);
  const auto attrs = c.attr<QuantizeAttrs>();
  if (c.dtype(0) != quantize_dtype(attrs) || c.dtype(1) != attrs.scale) {
    c.fail("codes {} and scales {}; {} and {} are wanted", dtype_name(c.dtype(0)),
           dtype_name(c.dtype(1)), dtype_name(quantize_dtype(attrs)), dtype_name(attrs.scale));
  }
  c.expect_shape(1, quantize_scales_shape(c.shape(0), attrs), "the scales");
  if (!is_floating(attrs.to)) {
    c.fail("cannot restore to {}; floating types only", dtype_name(attrs.to));
  }
  c.output(attrs.to, c.shape(0));
}

// The largest magnitude, then scale, two comparisons and a rounding.
double flops_encode(const Graph& g, NodeId n) {
  return 5 * static_cast<double>(g.shape(g.in(n, 0)).numel());
}

}  // namespace

const OpDef quantize_encode_op = {.name = "quantize_encode",
                                  .infer = infer_encode,
                                  .flops = flops_encode,
                                  .cpu = quantize_encode_cpu,
                                  .grouped = true};
const OpDef quantize_decode_op = {
    .name = "quantize_decode", .infer = infer_decode, .cpu = quantize_decode_cpu, .grouped = true};

QuantizeOut quantize_encode(Graph& graph, ValueId x, const QuantizeAttrs& attrs, ValueId rng) {
  // Without chance the random numbers are not read, so the graph does not hold on to them.
  const std::array<ValueId, 2> inputs = {x, attrs.stochastic ? rng : kNoValue};
  const NodeId n = graph.emit_node(quantize_encode_op, inputs, attrs);
  return {graph.output(n, 0), graph.output(n, 1)};
}

ValueId quantize_decode(Graph& graph, const QuantizeOut& coded, QuantizeAttrs attrs, DType to) {
  attrs.to = to;
  return graph.emit(quantize_decode_op, {coded.codes, coded.scales}, attrs);
}

DType quantize_dtype(const QuantizeAttrs& attrs) { return attrs.bits == 4 ? DType::i4 : DType::i8; }

Shape quantize_scales_shape(const Shape& x, const QuantizeAttrs& attrs) {
  Shape out = x;
  out[x.rank() - 1] = QuantizeLayout(x, attrs).groups_of_row;
  return out;
}

int64_t quantized_bytes(const Shape& shape, const QuantizeAttrs& attrs) {
  return checked_add(byte_size(quantize_dtype(attrs), shape),
                     byte_size(attrs.scale, quantize_scales_shape(shape, attrs)));
}

}  // namespace lithe
