#include "tensor/ops/dropout_mask.h"

namespace lithe {
namespace {

void expect_dropout(const InferContext& c, const DropoutAttrs& attrs) {
  if (!(attrs.p >= 0 && attrs.p < 1)) {
    c.fail("p is {}; give a probability of zero in [0, 1)", attrs.p);
  }
  if (attrs.bits != 8 && attrs.bits != 16) {
    c.fail("masks take 8 or 16 random bits an element, not {}", attrs.bits);
  }
}

void infer_mask(InferContext& c) {
  c.expect_inputs(1);
  const auto attrs = c.attr<DropoutMaskAttrs>();
  expect_dropout(c, attrs.dropout);
  if (c.dtype(0) != DType::i64) {
    c.fail("rng is {}; int64 [2] (seed, step) is wanted", dtype_name(c.dtype(0)));
  }
  c.expect_shape(0, {2}, "rng");
  if (attrs.rows < 0 || attrs.width < 0) {
    c.fail("a mask of {} rows of {}", attrs.rows, attrs.width);
  }
  c.output(DType::u8, {dropout_mask_bytes(attrs.rows * attrs.width, attrs.packed)});
}

void infer_apply(InferContext& c) {
  c.expect_inputs(2);
  c.expect_floating(0);
  const auto attrs = c.attr<DropoutMaskAttrs>();
  expect_dropout(c, attrs.dropout);
  if (c.dtype(1) != DType::u8) {
    c.fail("the mask is {}; uint8 is wanted", dtype_name(c.dtype(1)));
  }
  c.expect_shape(1, {dropout_mask_bytes(c.shape(0).numel(), attrs.packed)}, "the mask");
  c.output(c.dtype(0), c.shape(0));
}

void grad_apply(GradContext& c) {
  if (c.wants(0)) {
    c.set(0, c.graph.emit(dropout_apply_op, {c.dout(), c.in(1)}, c.attr<DropoutMaskAttrs>()));
  }
}

}  // namespace

const OpDef dropout_mask_op = {
    .name = "dropout_mask", .infer = infer_mask, .cpu = dropout_mask_cpu};
const OpDef dropout_apply_op = {.name = "dropout_apply",
                                .infer = infer_apply,
                                .grad = grad_apply,
                                .aliases = {{{Alias::in_place, 0, 0}}},
                                .cpu = dropout_apply_cpu};

ValueId dropout_mask(Graph& graph, ValueId rng, const DropoutAttrs& attrs, const Shape& shape,
                     bool packed) {
  const int64_t width = shape.rank() == 0 ? 1 : shape.back();
  const int64_t rows = width == 0 ? 0 : shape.numel() / width;
  return graph.emit(dropout_mask_op, {rng}, DropoutMaskAttrs{attrs, packed, rows, width});
}

ValueId dropout_apply(Graph& graph, ValueId x, ValueId mask, const DropoutAttrs& attrs,
                      bool packed) {
  return graph.emit(dropout_apply_op, {x, mask}, DropoutMaskAttrs{attrs, packed, 1, 1});
}

}  // namespace lithe
