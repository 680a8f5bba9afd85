#include "tensor/ops/fixed_point.h"

#include <cmath>

namespace lithe {
namespace {

void expect_format(const InferContext& c) {
  const auto attrs = c.attr<FixedPointAttrs>();
  const int bits = fixed_point_grid(attrs).bits;
  if (attrs.integer < 0 || attrs.fraction < 0 || (bits != 4 && bits != 8)) {
    c.fail("{} integer and {} fraction bits, {}signed: {} bits; 4 or 8 are wanted", attrs.integer,
           attrs.fraction, attrs.is_signed ? "" : "un", bits);
  }
}

void infer_encode(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  expect_format(c);
  c.output(fixed_point_dtype(c.attr<FixedPointAttrs>()), c.shape(0));
}

void infer_decode(InferContext& c) {
  c.expect_inputs(1);
  expect_format(c);
  const auto attrs = c.attr<FixedPointAttrs>();
  if (c.dtype(0) != fixed_point_dtype(attrs)) {
    c.fail("codes of {} are {}, those of {} are {}", fixed_point_name(attrs),
           dtype_name(fixed_point_dtype(attrs)), c.shape(0), dtype_name(c.dtype(0)));
  }
  if (!is_floating(attrs.to)) {
    c.fail("cannot restore to {}; floating types only", dtype_name(attrs.to));
  }
  c.output(attrs.to, c.shape(0));
}

// Scale, two comparisons and a rounding.
double flops_encode(const Graph& g, NodeId n) {
  return 4 * static_cast<double>(g.shape(g.in(n, 0)).numel());
}

}  // namespace

const OpDef fixed_point_encode_op = {.name = "fixed_point_encode",
                                     .infer = infer_encode,
                                     .flops = flops_encode,
                                     .cpu = fixed_point_encode_cpu};
const OpDef fixed_point_decode_op = {
    .name = "fixed_point_decode", .infer = infer_decode, .cpu = fixed_point_decode_cpu};

FixedPointGrid fixed_point_grid(const FixedPointAttrs& attrs) {
  if (attrs.unit) {
    return {255.0f, 0.0f, 255.0f, 8};
  }
  const int magnitude = attrs.integer + attrs.fraction;
  const float range = std::ldexp(1.0f, magnitude);
  return {std::ldexp(1.0f, attrs.fraction), attrs.is_signed ? -range : 0.0f, range - 1,
          magnitude + (attrs.is_signed ? 1 : 0)};
}

DType fixed_point_dtype(const FixedPointAttrs& attrs) {
  if (fixed_point_grid(attrs).bits == 4) {
    return DType::i4;
  }
  return attrs.is_signed && !attrs.unit ? DType::i8 : DType::u8;
}

std::string fixed_point_name(const FixedPointAttrs& attrs) {
  return attrs.unit
             ? "uint8"
             : fmt::format("{}q{}.{}", attrs.is_signed ? "" : "u", attrs.integer, attrs.fraction);
}

ValueId fixed_point_encode(Graph& graph, ValueId x, const FixedPointAttrs& attrs) {
  return graph.emit(fixed_point_encode_op, {x}, attrs);
}

ValueId fixed_point_decode(Graph& graph, ValueId codes, FixedPointAttrs attrs, DType to) {
  attrs.to = to;
  return graph.emit(fixed_point_decode_op, {codes}, attrs);
}

}  // namespace lithe
