// Products that are activated and coded before they reach memory. Codes must be those of the plain
// ops bit for bit, so operands are such that no type rounds the products.
#include "registry/code_formats.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/linear_activation.h"

namespace lithe::registry {
namespace {

struct Size {
  Shape x;  // or dy
  int64_t columns;
};

void add_forward(std::vector<Case>& cases, const Size& size, bool bias, Activation kind,
                 const Format& x, const Format& y) {
  const auto input = [](const Shape& shape) {
    return Input{.shape = shape, .fill = Fill::ternary, .differentiable = false};
  };
  cases.push_back(
      {.op = &linear_activation_codes_op,
       .name = fmt::format("{} {} to {}{}{}{}{}{}", activation_name(kind), size.x, size.columns,
                           bias ? " bias" : "", x.name.empty() ? "" : " x ", x.name,
                           y.name.empty() ? "" : " y ", y.name),
       .inputs = {input(size.x), input({size.columns, size.x.back()}), input({size.columns})},
       .build = [bias, attrs = ActivationCodesAttrs{kind, x.code, y.code}](Graph& g,
                                                                           Values in) -> Outputs {
         // A bias of multiples of the products' own step.
         std::vector<ValueId> inputs = {in[0], scale(g, in[1], 0.125)};
         if (bias) {
           inputs.push_back(scale(g, in[2], 0.25));
         }
         return outputs_of(g, g.emit_node(linear_activation_codes_op, inputs, attrs));
       }});
}

void add_backward(std::vector<Case>& cases, const Size& size, Activation kind, const Format& f,
                  bool column_sum) {
  Shape kept = size.x;
  kept[kept.rank() - 1] = size.columns;
  cases.push_back({.op = &matmul_activation_codes_grad_op,
                   .name = fmt::format("{} {} to {} {}{}", activation_name(kind), size.x,
                                       size.columns, f.name, column_sum ? ", sums" : ""),
                   .inputs = {{.shape = size.x, .fill = Fill::ternary, .differentiable = false},
                              {.shape = {size.x.back(), size.columns},
                               .fill = Fill::ternary,
                               .differentiable = false},
                              {.shape = kept, .differentiable = false}},
                   .build = [code = f.code, grad = ActivationAttrs{kind, column_sum}](
                                Graph& g, Values in) -> Outputs {
                     std::vector<ValueId> inputs(static_cast<size_t>(2 + code.parts()), in[0]);
                     inputs[1] = scale(g, in[1], 0.125);
                     emit_encode(g, in[2], code, std::span(inputs).subspan(2));
                     return outputs_of(g, g.emit_node(matmul_activation_codes_grad_op, inputs,
                                                      ActivationCodesGradAttrs{grad, code}));
                   }});
}

}  // namespace

void add_linear_activation_cases(std::vector<Case>& cases) {
  const Format none;
  const Format q21 = {fixed({.integer = 2, .fraction = 1}), "q2.1"};
  const Format q34 = {fixed({.integer = 3, .fraction = 4}), "q3.4"};
  const Format int8 = {quantized(8, 64, DType::bf16), "int8/64"};
  const Format int4 = {quantized(4, 64, DType::bf16), "int4/64"};
  const Format wide = {quantized(8, 128, DType::f32), "int8/128 fp32"};
  // By the library, and a pass behind it; one part of a tile.
  const Size small[] = {{{1, 1}, 1}, {{3, 5}, 7}, {{0, 8}, 8}, {{4, 0}, 8}, {{2, 3, 8}, 24}};
  for (const Size& size : small) {
    add_forward(cases, size, true, Activation::gelu, q21, none);
    add_backward(cases, size, Activation::gelu, q21, true);
  }
  const Size grouped[] = {{{2, 3, 40}, 64}, {{67, 24}, 640}};
  for (const Size& size : grouped) {
    for (const Format& f : {q21, int8, int4, wide}) {
      const bool whole = size.columns % 128 == 0 || f.name != wide.name;
      if (whole) {
        add_forward(cases, size, false, Activation::relu, f, f);
        add_backward(cases, size, Activation::gelu, f, false);
      }
    }
  }
  // In registers: tiles that end behind the last row or column, stages that end behind the last
  // element of a sum, an odd number of tiles below one another.
  const Size tiles[] = {
      {{300, 136}, 64}, {{2, 131, 200}, 192}, {{129, 192}, 1280}, {{40, 768}, 320}};
  for (const Size& size : tiles) {
    for (const Format& f : {q21, q34, int8, int4}) {
      add_forward(cases, size, f.name == q21.name, Activation::gelu, f, none);
      add_backward(cases, size, Activation::gelu, f, f.name != q34.name);
    }
  }
  // Two tiles and more for every processor of a GPU.
  const Size many[] = {{{16900, 24}, 512}, {{4225, 200}, 2112}};
  for (const Size& size : many) {
    add_forward(cases, size, true, Activation::gelu, q21, none);
    add_backward(cases, size, Activation::gelu, q21, true);
  }
  const Size some = {{257, 136}, 384};
  for (const Format& f : {q21, wide}) {
    add_forward(cases, some, true, Activation::gelu, f, none);
    add_forward(cases, some, true, Activation::relu, none, f);
    add_backward(cases, some, Activation::gelu, f, true);
  }
  add_forward(cases, some, false, Activation::relu, int8, q21);
  for (const Activation kind : {Activation::gelu_tanh, Activation::quick_gelu, Activation::silu,
                                Activation::relu, Activation::tanh, Activation::sigmoid}) {
    add_forward(cases, some, true, kind, q21, none);
    add_backward(cases, some, kind, q34, true);
    add_backward(cases, some, kind, int4, false);
  }
}

}  // namespace lithe::registry
