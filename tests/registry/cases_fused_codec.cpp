// Ops that make or read codes on their way. Codes must be those of the plain ops bit for bit, in
// every type, so what is coded here is exact in all of them: inputs, their sums with themselves,
// relu.
#include "registry/code_formats.h"
#include "tensor/ops/activation_codes.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/residual_norm_codes.h"

namespace lithe::registry {
namespace {

std::vector<Format> fixed_formats() {
  return {{fixed({.integer = 2, .fraction = 1}), "q2.1"},
          {fixed({.integer = 3, .fraction = 4}), "q3.4"},
          {fixed({.integer = 0, .fraction = 8, .is_signed = false}), "uq0.8"},
          {fixed({.integer = 2, .fraction = 2, .is_signed = false}), "uq2.2"},
          {fixed({.unit = true}), "uint8"}};
}
std::vector<Format> quantized_formats() {
  return {{quantized(8, 64, DType::bf16), "int8/64"},
          {quantized(4, 64, DType::bf16), "int4/64"},
          {quantized(4, 32, DType::f16), "int4/32 fp16"},
          {quantized(8, 8, DType::f32), "int8/8 fp32"},
          {quantized(4, 128, DType::f32), "int4/128 fp32"},
          {quantized(8, 128, DType::bf16), "int8/128"}};
}

void add_activation(std::vector<Case>& cases, const Shape& shape, Activation kind, const Format& x,
                    const Format& y) {
  cases.push_back({.op = &activation_codes_op,
                   .name = fmt::format("{} {}{}{}{}{}", activation_name(kind), shape,
                                       x.name.empty() ? "" : " x ", x.name,
                                       y.name.empty() ? "" : " y ", y.name),
                   .inputs = {{.shape = shape, .differentiable = false}},
                   .build = [kind, x = x.code, y = y.code](Graph& g, Values in) -> Outputs {
                     const std::array<ValueId, 1> inputs = {in[0]};
                     return outputs_of(g, g.emit_node(activation_codes_op, inputs,
                                                      ActivationCodesAttrs{kind, x, y}));
                   }});
}

void add_activation_grad(std::vector<Case>& cases, const Shape& shape, Activation kind,
                         const Format& f, bool column_sum) {
  const Input input = {.shape = shape, .differentiable = false};
  cases.push_back({.op = &activation_codes_grad_op,
                   .name = fmt::format("{} {} {}{}", activation_name(kind), shape, f.name,
                                       column_sum ? ", sums" : ""),
                   .inputs = {input, input},
                   .build = [kind, code = f.code, column_sum](Graph& g, Values in) -> Outputs {
                     std::vector<ValueId> inputs(static_cast<size_t>(1 + code.parts()), in[0]);
                     emit_encode(g, in[1], code, std::span(inputs).subspan(1));
                     return outputs_of(
                         g, g.emit_node(activation_codes_grad_op, inputs,
                                        ActivationCodesGradAttrs{{kind, column_sum}, code}));
                   }});
}

// sum = y + dropout(y) or so, a multiple of y by a power of two.
ValueId residual_of(Graph& g, ValueId y, double p) { return scale(g, y, p == 0 ? 1 : 2); }

void add_norm(std::vector<Case>& cases, const Shape& shape, const Format& f, double p, bool sum) {
  const Input parameter = {.shape = {shape.back()}, .differentiable = false};
  cases.push_back({.op = &residual_norm_codes_op,
                   .name = fmt::format("{} {} p {}{}", shape, f.name, p, sum ? ", sum" : ""),
                   .inputs = {{.shape = shape, .differentiable = false},
                              parameter,
                              parameter,
                              {.shape = {2}, .fill = Fill::rng}},
                   .build = [code = f.code, p, sum](Graph& g, Values in) -> Outputs {
                     const ResidualNormCodesAttrs attrs{
                         {.eps = 1e-5, .dropout = {.p = p, .key = 77}}, code, sum};
                     const std::array<ValueId, 5> inputs = {in[0], residual_of(g, in[0], p), in[1],
                                                            in[2], p > 0 ? in[3] : kNoValue};
                     return outputs_of(g, g.emit_node(residual_norm_codes_op, inputs, attrs));
                   }});
}

void add_norm_grad(std::vector<Case>& cases, const Shape& shape, const Format& f,
                   const ResidualNormGradAttrs& attrs, bool joins, const char* name) {
  const Input full = {.shape = shape, .differentiable = false};
  const Input parameter = {.shape = {shape.back()}, .differentiable = false};
  cases.push_back(
      {.op = &residual_norm_codes_grad_op,
       .name = fmt::format("{} {} {}", shape, f.name, name),
       .inputs = {full, full, full, parameter, parameter, {.shape = {2}, .fill = Fill::rng}},
       .build = [code = f.code, attrs, joins](Graph& g, Values in) -> Outputs {
         const std::array<ValueId, 4> forward = {in[0], residual_of(g, in[0], 0), in[3], in[4]};
         const NodeId norm = g.emit_node(residual_norm_codes_op, forward,
                                         ResidualNormCodesAttrs{{.eps = 1e-5}, code, false});
         const std::array<ValueId, 8> inputs = {
             in[1], g.output(norm, 3),        g.output(norm, 1),          g.output(norm, 2),
             in[3], joins ? in[2] : kNoValue, attrs.y ? in[5] : kNoValue, g.output(norm, 4)};
         return outputs_of(g, g.emit_node(residual_norm_codes_grad_op, inputs,
                                          ResidualNormCodesGradAttrs{attrs, code}));
       }});
}

}  // namespace

void add_fused_codec_cases(std::vector<Case>& cases) {
  const Shape any[] = {{1}, {7}, {8}, {3, 5}, {0}, {3, 0}, {2, 3, 64}, {9, 257}, {70, 1032}};
  for (const Format& f : fixed_formats()) {
    for (const Shape& shape : any) {
      add_activation(cases, shape, Activation::gelu, f, {});
      add_activation_grad(cases, shape, Activation::gelu, f, false);
      add_activation_grad(cases, shape, Activation::gelu, f, true);
    }
    add_activation(cases, {5, 33}, Activation::relu, {}, f);
    add_activation_grad(cases, {200, 24}, Activation::gelu, f, true);
  }
  const Shape rows[] = {{128}, {0, 128}, {3, 256}, {2, 5, 384}, {67, 640}, {3, 1024}};
  for (const Format& f : quantized_formats()) {
    for (const Shape& shape : rows) {
      add_activation(cases, shape, Activation::gelu, f, {});
      add_activation(cases, shape, Activation::relu, fixed_formats()[0], f);
      add_activation(cases, shape, Activation::relu, f, f);
      add_activation_grad(cases, shape, Activation::gelu, f, false);
      add_activation_grad(cases, shape, Activation::gelu, f, true);
    }
    // More rows than are on their way at once, and ranges of them.
    add_activation_grad(cases, {517, 384}, Activation::gelu, f, true);
  }
  // More tiles than blocks on a GPU.
  add_activation(cases, {2111, 1041}, Activation::gelu, fixed_formats()[0], {});
  add_activation(cases, {2112, 1088}, Activation::relu, quantized_formats()[1],
                 quantized_formats()[0]);
  for (const Activation kind : {Activation::gelu_tanh, Activation::quick_gelu, Activation::silu,
                                Activation::relu, Activation::tanh, Activation::sigmoid}) {
    add_activation(cases, {3, 40}, kind, fixed_formats()[1], {});
    add_activation_grad(cases, {3, 40}, kind, fixed_formats()[0], false);
    add_activation_grad(cases, {130, 40}, kind, fixed_formats()[1], true);
    add_activation_grad(cases, {130, 192}, kind, quantized_formats()[0], false);
    add_activation_grad(cases, {130, 64}, kind, {quantized(8, 0, DType::f16), "int8/row"}, true);
    add_activation_grad(cases, {130, 192}, kind, quantized_formats()[1], true);
  }

  const DropoutAttrs drops{.p = 0.3, .key = 5};
  struct Use {
    const char* name;
    ResidualNormGradAttrs attrs;
    bool joins;
  };
  const Use uses[] = {
      {"sum", {.sum = true}, false},
      {"sum joined", {.sum = true}, true},
      {"y", {.dropout = drops, .y = true}, false},
      {"sum y beta bias",
       {.dropout = drops, .sum = true, .y = true, .beta = true, .bias = true},
       true},
      {"sum bias", {.sum = true, .bias = true}, false},
      {"sum beta", {.sum = true, .beta = true}, false},
      {"y gamma bias", {.dropout = drops, .y = true, .gamma = true, .bias = true}, false},
      {"sum gamma beta", {.sum = true, .gamma = true, .beta = true}, true},
      {"all",
       {.dropout = drops, .sum = true, .y = true, .gamma = true, .beta = true, .bias = true},
       true}};
  const Shape normed[] = {{128},     {0, 128},  {3, 256},   {2, 5, 384},
                          {19, 512}, {67, 640}, {300, 768}, {3, 1024}};
  for (const Format& f : quantized_formats()) {
    for (const Shape& shape : normed) {
      add_norm(cases, shape, f, 0, true);
      add_norm(cases, shape, f, 0.5, false);
      add_norm_grad(cases, shape, f, uses[3].attrs, uses[3].joins, uses[3].name);
    }
  }
  // More rows than warps.
  add_norm(cases, {2200, 768}, quantized_formats()[1], 0.5, false);
  add_norm_grad(cases, {2200, 768}, quantized_formats()[1], uses[3].attrs, false, uses[3].name);
  for (const Use& use : uses) {
    add_norm_grad(cases, {67, 384}, quantized_formats()[0], use.attrs, use.joins, use.name);
    add_norm_grad(cases, {5, 256}, quantized_formats()[1], use.attrs, use.joins, use.name);
    add_norm_grad(cases, {2200, 128}, quantized_formats()[1], use.attrs, use.joins, use.name);
  }
}

}  // namespace lithe::registry
