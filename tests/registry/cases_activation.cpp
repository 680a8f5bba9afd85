#include "registry/registry.h"
#include "tensor/ops/activation.h"

namespace lithe::registry {

void add_activation_cases(std::vector<Case>& cases) {
  struct Kind {
    Activation kind;
    const OpDef* op;
  };
  const Kind kinds[] = {{Activation::gelu, &gelu_op},
                        {Activation::gelu_tanh, &gelu_tanh_op},
                        {Activation::quick_gelu, &quick_gelu_op},
                        {Activation::silu, &silu_op},
                        {Activation::relu, &relu_op},
                        {Activation::tanh, &tanh_op},
                        {Activation::sigmoid, &sigmoid_op}};
  const Shape shapes[] = {{},         {1},    {7},    {16},         {3, 5},
                          {2, 1, 33}, {0, 4}, {4, 0}, {2, 3, 1, 5}, {3, 1025}};
  for (const Kind& k : kinds) {
    for (const Shape& shape : shapes) {
      cases.push_back({.op = k.op,
                       .name = fmt::format("{}", shape),
                       .inputs = {{.shape = shape, .fill = Fill::apart}},
                       .build = [kind = k.kind](Graph& g, std::span<const ValueId> in) {
                         return std::vector<ValueId>{activation(g, in[0], kind)};
                       }});
    }
  }
}

}  // namespace lithe::registry
