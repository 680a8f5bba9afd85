// A linear layer and the activation behind it as one op, each way, with codes of what backward
// keeps (SlimFit, arXiv 2305.18513): on CUDA the product's results are activated and coded before
// they reach memory.
#pragma once

#include "tensor/ops/activation_codes.h"

namespace lithe {

// Forward (x [..., in], weight [out, in], bias [out] or kNoValue) -> (y [..., out], codes of the
// pre-activation[, scales], codes of y[, scales]), as far as each is asked for; attributes as of
// activation_codes. Definition: linear, activation_codes.
// Backward (dy [..., k], weight [k, n], codes[, scales] of what the activation keeps [..., n]) ->
// dx [..., n] and, where column_sum is set, its sum over all leading dimensions; attributes as of
// activation_codes_grad. Definition: matmul, activation_codes_grad.
extern const OpDef linear_activation_codes_op, matmul_activation_codes_grad_op;

// Whether the CUDA kernel takes a product [rows, depth] by [depth, columns] of this type; others
// are taken by the library, and a pass behind it.
bool is_finished_in_registers(DType dtype, int64_t rows, int64_t columns, int64_t depth);

// Its tiles of results; the rows of one are summed apart.
inline constexpr int64_t kFinishedRows = 128;
inline constexpr int64_t kFinishedColumns = 256;

void linear_activation_codes_cpu(const KernelArgs& args);
void matmul_activation_codes_grad_cpu(const KernelArgs& args);

// The two calls that a call of one of them stands for: a product into the result, and what happens
// to it there.
class ProductThenActivation {
 public:
  enum class Way : uint8_t { forward, backward };
  ProductThenActivation(const KernelArgs& args, Way way);
  ProductThenActivation(const ProductThenActivation&) = delete;
  ProductThenActivation& operator=(const ProductThenActivation&) = delete;
  const KernelArgs& product() const { return product_; }
  const KernelArgs& activation() const { return activation_; }

 private:
  Attrs product_attrs_;
  std::array<TensorRef, 3> in_;
  KernelArgs product_;
  KernelArgs activation_;
};

}  // namespace lithe
