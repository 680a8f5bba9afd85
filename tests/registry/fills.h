// Values of a case's inputs: pure functions of (seed, case, input), so a failure can be repeated.
#pragma once

#include <vector>

#include "registry/registry.h"
#include "tensor/core/tensor.h"

namespace lithe::registry {

// The type an input has when its case runs in `dtype`.
DType input_dtype(const Input& input, DType dtype);
// Whether a gradient for the input is asked for.
bool is_differentiable(const Input& input);

// One tensor an input, of the types of `dtype`. Values are drawn in fp64 and rounded, so the fp32
// inputs are the rounded fp64 ones.
std::vector<Tensor> make_inputs(const Case& c, DType dtype, uint64_t seed);
// N(0, 1), as a function of (seed, stream, element).
Tensor make_normal(DType dtype, const Shape& shape, uint64_t seed, uint64_t stream);
// The same numbers in the types of another run.
std::vector<Tensor> convert_inputs(const Case& c, const std::vector<Tensor>& values, DType dtype);

}  // namespace lithe::registry
