// The code of a saved activation inside an op that makes or reads it on its way: which format, and
// what of it the fused kernels can do.
#pragma once

#include "tensor/ops/fixed_point.h"
#include "tensor/ops/quantize.h"

namespace lithe {

// As fixed_point_encode or quantize_encode without chance would make it, bit for bit.
struct SavedCode {
  enum class Kind : uint8_t { none, fixed_point, quantized };

  Kind kind = Kind::none;
  FixedPointAttrs fixed = {};
  int8_t bits = 8;
  DType scale = DType::bf16;
  int32_t group = 64;

  QuantizeAttrs quantize() const { return {.bits = bits, .group = group, .scale = scale}; }
  // Values that hold it: codes, and scales where it is quantized.
  int parts() const { return kind == Kind::none ? 0 : kind == Kind::fixed_point ? 1 : 2; }
};

// That of an encode or decode node; none for other nodes and for random rounding.
SavedCode code_of(const Graph& graph, NodeId n);

// Whether every group of x is whole and lies in neighbouring lanes of a warp; always so for fixed
// point.
bool is_in_lanes(const SavedCode& code, const Shape& x);

// Shape rules: declares the code of x as outputs; expects it at input i, its scales at `scales`,
// where no x is given of the first input's shape.
void declare_code(InferContext& c, const SavedCode& code, const Shape& x);
void expect_code(InferContext& c, const SavedCode& code, int i, int scales, const Shape& x);
void expect_code(InferContext& c, const SavedCode& code, int i, int scales);

// By the ops of their own, at the cursor. `parts` is filled, or read, as far as the code has parts.
void emit_encode(Graph& graph, ValueId x, const SavedCode& code, std::span<ValueId> parts);
ValueId emit_decode(Graph& graph, std::span<const ValueId> parts, const SavedCode& code, DType to);

// The same on tensors, on the CPU.
void encode_saved_cpu(const KernelArgs& args, const SavedCode& code, const TensorRef& x,
                      std::span<const TensorRef> parts);
void decode_saved_cpu(const KernelArgs& args, const SavedCode& code,
                      std::span<const TensorRef> parts, const TensorRef& x);

}  // namespace lithe
