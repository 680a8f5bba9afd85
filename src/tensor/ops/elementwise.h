// Pointwise arithmetic with NumPy broadcasting of up to 6 dimensions; both inputs of one dtype.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

ValueId add(Graph& graph, ValueId a, ValueId b);
ValueId sub(Graph& graph, ValueId a, ValueId b);
ValueId mul(Graph& graph, ValueId a, ValueId b);
ValueId div(Graph& graph, ValueId a, ValueId b);
ValueId scale(Graph& graph, ValueId x, double factor);
// A tensor filled with one value; the seed of a backward pass.
ValueId fill(Graph& graph, DType dtype, const Shape& shape, double value);
// Converts between floating types; the gradient is converted back.
ValueId cast(Graph& graph, ValueId x, DType to);

extern const OpDef add_op, sub_op, mul_op, div_op, scale_op, fill_op, cast_op;

enum class Binary : uint8_t { add, sub, mul, div };
struct BinaryAttrs {
  Binary kind = Binary::add;
};
struct ScaleAttrs {
  double factor = 1;
};
struct FillAttrs {
  double value = 0;
  DType dtype = DType::f32;
  Shape shape;
};
struct CastAttrs {
  DType to = DType::f32;
};

void binary_cpu(const KernelArgs& args);
void scale_cpu(const KernelArgs& args);
void fill_cpu(const KernelArgs& args);
void cast_cpu(const KernelArgs& args);

// build_gradients with `add` for joining and d(loss)/d(loss) = seed.
std::vector<ParameterGradient> gradients(Graph& graph, ValueId loss, double seed,
                                         std::span<const ValueId> wanted);

}  // namespace lithe
