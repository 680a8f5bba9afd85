#include "tensor/ops/saved_code.h"

#include <array>
#include <bit>

namespace lithe {

SavedCode code_of(const Graph& graph, NodeId n) {
  const OpDef* op = graph.node(n).op;
  SavedCode code;
  if (op == &fixed_point_encode_op || op == &fixed_point_decode_op) {
    code.kind = SavedCode::Kind::fixed_point;
    code.fixed = graph.attr<FixedPointAttrs>(n);
  } else if (op == &quantize_encode_op || op == &quantize_decode_op) {
    const auto attrs = graph.attr<QuantizeAttrs>(n);
    code.kind = attrs.stochastic ? SavedCode::Kind::none : SavedCode::Kind::quantized;
    code.bits = static_cast<int8_t>(attrs.bits);
    code.scale = attrs.scale;
    code.group = attrs.group;
  }
  return code;
}

bool is_in_lanes(const SavedCode& code, const Shape& x) {
  if (code.kind != SavedCode::Kind::quantized) {
    return true;
  }
  // 16 bytes a lane are 8 elements, or 4 of fp32, of which a warp has 128.
  const QuantizeLayout layout(x, code.quantize());
  return layout.group >= 8 && layout.group <= 128 &&
         std::has_single_bit(static_cast<uint64_t>(layout.group)) &&
         layout.columns % layout.group == 0;
}

void declare_code(InferContext& c, const SavedCode& code, const Shape& x) {
  if (code.kind == SavedCode::Kind::fixed_point) {
    c.output(fixed_point_dtype(code.fixed), x);
  } else if (code.kind == SavedCode::Kind::quantized) {
    if (!is_in_lanes(code, x)) {
      c.fail("groups of {} in {}; 8 to 128 elements, a power of two that divides a row, are wanted",
             code.group, x);
    }
    c.output(quantize_dtype(code.quantize()), x);
    c.output(code.scale, quantize_scales_shape(x, code.quantize()));
  }
}

void expect_code(InferContext& c, const SavedCode& code, int i, int scales, const Shape& x) {
  const bool fixed = code.kind == SavedCode::Kind::fixed_point;
  const DType wanted = fixed ? fixed_point_dtype(code.fixed) : quantize_dtype(code.quantize());
  if (c.dtype(i) != wanted) {
    c.fail("the codes are {}, {} wanted", dtype_name(c.dtype(i)), dtype_name(wanted));
  }
  c.expect_shape(i, x, "the codes");
  if (fixed) {
    return;
  }
  if (!is_in_lanes(code, x)) {
    c.fail("groups of {} in {}; 8 to 128 elements, a power of two that divides a row, are wanted",
           code.group, x);
  }
  c.expect_shape(scales, quantize_scales_shape(x, code.quantize()), "the scales");
  if (c.dtype(scales) != code.scale) {
    c.fail("the scales are {}, {} wanted", dtype_name(c.dtype(scales)), dtype_name(code.scale));
  }
}

void expect_code(InferContext& c, const SavedCode& code, int i, int scales) {
  expect_code(c, code, i, scales, c.shape(0));
}

void emit_encode(Graph& graph, ValueId x, const SavedCode& code, std::span<ValueId> parts) {
  if (code.kind == SavedCode::Kind::fixed_point) {
    parts[0] = fixed_point_encode(graph, x, code.fixed);
  } else if (code.kind == SavedCode::Kind::quantized) {
    const QuantizeOut out = quantize_encode(graph, x, code.quantize());
    parts[0] = out.codes;
    parts[1] = out.scales;
  }
}

ValueId emit_decode(Graph& graph, std::span<const ValueId> parts, const SavedCode& code, DType to) {
  return code.kind == SavedCode::Kind::fixed_point
             ? fixed_point_decode(graph, parts[0], code.fixed, to)
             : quantize_decode(graph, {parts[0], parts[1]}, code.quantize(), to);
}

void encode_saved_cpu(const KernelArgs& args, const SavedCode& code, const TensorRef& x,
                      std::span<const TensorRef> parts) {
  if (code.kind == SavedCode::Kind::none) {
    return;
  }
  const bool fixed = code.kind == SavedCode::Kind::fixed_point;
  const Attrs attrs = fixed ? Attrs(code.fixed) : Attrs(code.quantize());
  const KernelArgs call = {.op = args.op, .in = {&x, 1}, .out = parts, .attrs = &attrs};
  fixed ? fixed_point_encode_cpu(call) : quantize_encode_cpu(call);
}

void decode_saved_cpu(const KernelArgs& args, const SavedCode& code,
                      std::span<const TensorRef> parts, const TensorRef& x) {
  const bool fixed = code.kind == SavedCode::Kind::fixed_point;
  const Attrs attrs = fixed ? Attrs(code.fixed) : Attrs(code.quantize());
  const KernelArgs call = {.op = args.op, .in = parts, .out = {&x, 1}, .attrs = &attrs};
  fixed ? fixed_point_decode_cpu(call) : quantize_decode_cpu(call);
}

}  // namespace lithe
