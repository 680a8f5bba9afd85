// Pointwise activations: y = f(x), any shape, floating types.
#pragma once

#include <optional>
#include <string_view>

#include "tensor/graph/gradient.h"

namespace lithe {

enum class Activation : uint8_t { none, gelu, gelu_tanh, quick_gelu, silu, relu, tanh, sigmoid };

// Names as Hugging Face configs write them ("gelu", "gelu_new", "quick_gelu", "silu", "relu", ...).
std::optional<Activation> activation_from_name(std::string_view name);
std::string_view activation_name(Activation kind);  // its name in Hugging Face configs

// gelu: x Phi(x) with the exact erf; gelu_tanh: its tanh approximation; quick_gelu: x sigmoid(1.702
// x); silu: x sigmoid(x). Backward keeps x, for relu, tanh and sigmoid y. `none` returns x itself.
ValueId activation(Graph& graph, ValueId x, Activation kind);

extern const OpDef gelu_op, gelu_tanh_op, quick_gelu_op, silu_op, relu_op, tanh_op, sigmoid_op;
// dx from (dy, kept), kept being x or y as above; attributes: ActivationAttrs. Where column_sum is
// set, a second output [columns] is the sum of dx over all leading dimensions: the gradient of the
// bias that was added to x.
extern const OpDef activation_grad_op;

struct ActivationAttrs {
  Activation kind = Activation::none;
  bool column_sum = false;  // of activation_grad
};

void activation_cpu(const KernelArgs& args);
void activation_grad_cpu(const KernelArgs& args);

}  // namespace lithe
