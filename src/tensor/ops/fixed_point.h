// Fixed-point codes Q(i, f), without scales (SlimFit, arXiv 2305.18513): i bits before and f behind
// the point, and a sign. code = clamp(round(x 2^f)), ties to even; x is restored as code / 2^f.
// Neither has a gradient: they stand between forward and backward.
#pragma once

#include <string>

#include "tensor/graph/gradient.h"

namespace lithe {

// integer + fraction + (is_signed ? 1 : 0) is 4 or 8: Q(3,4) and Q(2,1) signed, Q(0,8) unsigned.
// `unit` stands for codes of [0, 1] in steps of 1/255 instead, both ends being exact.
struct FixedPointAttrs {
  int8_t integer = 3;
  int8_t fraction = 4;
  bool is_signed = true;
  bool unit = false;
  DType to = DType::f32;  // of fixed_point_decode
};

// What the arithmetic of a format needs.
struct FixedPointGrid {
  float factor = 1;  // code = round(x factor), x = code / factor
  float lowest = 0;
  float highest = 0;
  int bits = 0;  // of a code
};
FixedPointGrid fixed_point_grid(const FixedPointAttrs& attrs);
DType fixed_point_dtype(const FixedPointAttrs& attrs);       // of the codes
std::string fixed_point_name(const FixedPointAttrs& attrs);  // "q3.4", "uq0.8", "uint8"

// x of any shape and floating type -> codes of the same shape: int8, uint8 where unsigned, and int4
// for 4 bits. Two neighbours share a byte, the first in the low nibble, an unsigned code as its
// bits; the last nibble of an odd number is 0. NaN gets the lowest code.
ValueId fixed_point_encode(Graph& graph, ValueId x, const FixedPointAttrs& attrs);
// The numbers that the codes stand for, in the type `to`.
ValueId fixed_point_decode(Graph& graph, ValueId codes, FixedPointAttrs attrs, DType to);

extern const OpDef fixed_point_encode_op, fixed_point_decode_op;

void fixed_point_encode_cpu(const KernelArgs& args);
void fixed_point_decode_cpu(const KernelArgs& args);

}  // namespace lithe
