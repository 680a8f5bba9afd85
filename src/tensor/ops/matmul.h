// Matrix products on BLAS. fp64 and fp32 natively; bf16 and fp16 operands are widened into planned
// workspace and the product rounded once.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "tensor/graph/gradient.h"
#include "tensor/ops/activation.h"

namespace lithe {

struct MatmulAttrs {
  bool transpose_a = false;
  bool transpose_b = false;
  double alpha = 1;
};

// alpha * op(a) op(b) + addend over the last two dimensions, rounded once. Leading dimensions are
// batches: equal in both, or absent (rank 2) in one of them. The addend, where there is one, has
// the result's shape, and the result takes its place when it dies here.
ValueId matmul(Graph& graph, ValueId a, ValueId b, const MatmulAttrs& attrs = {},
               ValueId addend = kNoValue);

// x [..., n] as a matrix [rows, n].
ValueId as_matrix(Graph& graph, ValueId x);

struct LinearAttrs {
  Activation activation = Activation::none;
};
struct LinearOut {
  ValueId y = kNoValue;
  // Only where an activation is fused; backward keeps it, for relu, tanh and sigmoid y instead.
  ValueId pre_activation = kNoValue;
};

// y = f(x Wᵀ + b), x [..., in], weight [out, in] as Hugging Face stores it, bias [out] or kNoValue.
// Definition: matmul, add, activation. Gradients: dx = dy W, dW = dyᵀ x, db = sum of dy: with W
// frozen nobody reads x, which is what freezing saves (SlimFit, arXiv 2305.18513).
LinearOut linear(Graph& graph, ValueId x, ValueId weight, ValueId bias,
                 Activation fused = Activation::none);

// Several linear layers of one input and of one size, as query, key and value: y_i = x W_iᵀ + b_i;
// as many biases as weights, or none. On CUDA one batched product where the weights, the biases and
// the outputs each lie in memory at one distance. Definition: linear. Gradients: as linear's, dx
// being one sum.
struct LinearStackAttrs {
  int count = 1;
};
std::vector<ValueId> linear_stack(Graph& graph, ValueId x, std::span<const ValueId> weights,
                                  std::span<const ValueId> biases);

// On CUDA products with a dimension of at most so many have kernels of their own: the library's are
// made for squares (narrow_product_cuda.h).
inline constexpr int64_t kNarrow = 8;

extern const OpDef matmul_op, linear_op, linear_stack_op;
// db = sum of dy [..., out] over all leading dimensions.
extern const OpDef bias_grad_op;
// Both gradients of a linear layer's parameters, which read dy once: (dy [..., out], x [..., in])
// to dW = dyᵀ x [out, in] and db [out]. Definition: matmul, bias_grad.
extern const OpDef linear_dw_op;

// linear_dw of layers of one input and one size, as linear_stack has them: (dy_1 .. dy_count
// [..., out], x [..., in]) to dW_1 .. dW_count and, with biases, db_1 .. db_count. On CUDA one
// batched product where the dys and the dWs each lie in memory at one distance.
struct LinearStackDwAttrs {
  int count = 1;
  bool with_bias = false;
};
extern const OpDef linear_stack_dw_op;

void matmul_cpu(const KernelArgs& args);
void linear_cpu(const KernelArgs& args);
void linear_stack_cpu(const KernelArgs& args);
void bias_grad_cpu(const KernelArgs& args);
void linear_dw_cpu(const KernelArgs& args);
void linear_stack_dw_cpu(const KernelArgs& args);

// Layer `i` of a stack as a call of linear.
class StackedLinear {
 public:
  StackedLinear(const KernelArgs& stack, size_t i);
  StackedLinear(const StackedLinear&) = delete;
  StackedLinear& operator=(const StackedLinear&) = delete;
  const KernelArgs& args() const { return args_; }

 private:
  std::array<TensorRef, 3> in_;
  Attrs attrs_ = LinearAttrs{};
  KernelArgs args_;
};

// Layer `i` of linear_stack_dw as a call of linear_dw, without db where there is none.
class StackedLinearDw {
 public:
  StackedLinearDw(const KernelArgs& stack, size_t i);
  StackedLinearDw(const StackedLinearDw&) = delete;
  StackedLinearDw& operator=(const StackedLinearDw&) = delete;
  const KernelArgs& args() const { return args_; }

 private:
  std::array<TensorRef, 2> in_;
  std::array<TensorRef, 2> out_;
  KernelArgs args_;
};

}  // namespace lithe
