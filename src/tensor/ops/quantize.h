// Symmetric int8 and int4 codes with one scale a row or a group of neighbours in a row:
// scale = largest |x| / 127 (or 7), code = round(x / scale), x is restored as code * scale. Codes
// are computed from the scale as it is stored, so a coarse type of scales costs little. Neither op
// has a gradient: they stand between forward and backward.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

struct QuantizeAttrs {
  int32_t bits = 8;           // 8 or 4
  int32_t group = 64;         // elements of the last dimension that share a scale; 0: the whole row
  DType scale = DType::bf16;  // fp32, bf16 or fp16 (which has the least range: 6e-8 to 65504)
  bool stochastic = false;    // up or down at random, unbiased; needs rng
  uint64_t key = 0;           // the site's own number
  DType to = DType::f32;      // of quantize_decode
};

struct QuantizeOut {
  // int8 or int4 in the shape of x; int4 packs two neighbours in a byte, the first in the low
  // nibble, and the last nibble of an odd number is 0.
  ValueId codes = kNoValue;
  ValueId scales = kNoValue;  // [..., groups of a row]; a row's last group may be shorter
};

// x [..., C] of any floating type, at least one dimension. Computed in fp32. Ties round to even,
// with `stochastic` up or down as Philox says, unbiased to 2^-17 of a step; rng is an int64 [2]
// input (seed, step). A scale below the least normal fp32 number makes its group zeros; NaN gets
// the lowest code, and infinity makes its group NaN or infinite. Throws ShapeError.
QuantizeOut quantize_encode(Graph& graph, ValueId x, const QuantizeAttrs& attrs,
                            ValueId rng = kNoValue);
// What codes and scales stand for, in the type `to`; attributes as they were for encoding.
ValueId quantize_decode(Graph& graph, const QuantizeOut& coded, QuantizeAttrs attrs, DType to);

DType quantize_dtype(const QuantizeAttrs& attrs);  // of the codes
Shape quantize_scales_shape(const Shape& x, const QuantizeAttrs& attrs);
// Bytes of codes and scales for x of this shape.
int64_t quantized_bytes(const Shape& shape, const QuantizeAttrs& attrs);

// (x, rng?) -> (codes, scales); (codes, scales) -> x.
extern const OpDef quantize_encode_op, quantize_decode_op;

// Rows and groups of x [..., C].
struct QuantizeLayout {
  QuantizeLayout(const Shape& x, const QuantizeAttrs& attrs)
      : columns(x.back()),
        rows(x.product(0, x.rank() - 1)),
        group(attrs.group == 0 || attrs.group > columns ? columns : attrs.group),
        groups_of_row(group == 0 ? 0 : (columns + group - 1) / group) {}
  int64_t columns;
  int64_t rows;
  int64_t group;  // elements of a group; 0 only where rows are empty
  int64_t groups_of_row;
};

void quantize_encode_cpu(const KernelArgs& args);
void quantize_decode_cpu(const KernelArgs& args);

}  // namespace lithe
