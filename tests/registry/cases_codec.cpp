// Codes of saved activations: codes and scales are whole numbers of bits, so every backend and
// every type of x that holds the same numbers must give the same ones.
#include "registry/registry.h"
#include "tensor/ops/fixed_point.h"
#include "tensor/ops/quantize.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

// Odd numbers of elements end within a byte of 4-bit codes.
const Shape kShapes[] = {{1},      {7},           {8},       {3, 5},     {0},
                         {3, 0},   {2, 3, 64},    {5, 130},  {4, 96},    {2, 768},
                         {9, 257}, {3, 2, 5, 16}, {2, 4096}, {17, 1024}, {1, 3, 2056}};

void add_fixed_point(std::vector<Case>& cases) {
  const FixedPointAttrs formats[] = {{.integer = 3, .fraction = 4},
                                     {.integer = 2, .fraction = 1},
                                     {.integer = 0, .fraction = 8, .is_signed = false},
                                     {.integer = 0, .fraction = 4, .is_signed = false},
                                     {.unit = true}};
  for (const FixedPointAttrs& attrs : formats) {
    const Fill fill = attrs.is_signed && !attrs.unit ? Fill::normal : Fill::positive;
    for (const Shape& shape : kShapes) {
      for (const OpDef* op : {&fixed_point_encode_op, &fixed_point_decode_op}) {
        cases.push_back({.op = op,
                         .name = fmt::format("{} {}", shape, fixed_point_name(attrs)),
                         .inputs = {{.shape = shape, .fill = fill, .differentiable = false}},
                         .build = [attrs](Graph& g, Values in) -> Outputs {
                           const ValueId codes = fixed_point_encode(g, in[0], attrs);
                           return {fixed_point_decode(g, codes, attrs, g.dtype(in[0])), codes};
                         }});
      }
    }
  }
}

void add_quantize(std::vector<Case>& cases) {
  struct Format {
    QuantizeAttrs attrs;
    std::string name;
  };
  const Format formats[] = {
      {{.bits = 8, .group = 64, .scale = DType::bf16}, "int8/64"},
      {{.bits = 8, .group = 0, .scale = DType::f32}, "int8/row"},
      {{.bits = 4, .group = 64, .scale = DType::bf16}, "int4/64"},
      {{.bits = 4, .group = 32, .scale = DType::f16}, "int4/32 fp16"},
      {{.bits = 4, .group = 0, .scale = DType::f32}, "int4/row"},
      {{.bits = 4, .group = 3, .scale = DType::f32}, "int4/3"},
      {{.bits = 8, .group = 128, .scale = DType::f32, .stochastic = true, .key = 5}, "int8 random"},
      {{.bits = 4, .group = 0, .scale = DType::bf16, .stochastic = true, .key = 6}, "int4 random"}};
  for (const Format& f : formats) {
    for (const Shape& shape : kShapes) {
      for (const OpDef* op : {&quantize_encode_op, &quantize_decode_op}) {
        std::vector<Input> inputs = {{.shape = shape, .differentiable = false}};
        if (f.attrs.stochastic) {
          inputs.push_back({.shape = {2}, .fill = Fill::rng});
        }
        cases.push_back({.op = op,
                         .name = fmt::format("{} {}", shape, f.name),
                         .inputs = inputs,
                         .build = [attrs = f.attrs](Graph& g, Values in) -> Outputs {
                           const ValueId rng = attrs.stochastic ? in[1] : kNoValue;
                           const QuantizeOut coded = quantize_encode(g, in[0], attrs, rng);
                           const ValueId y = quantize_decode(g, coded, attrs, g.dtype(in[0]));
                           return {y, coded.codes, coded.scales};
                         }});
      }
    }
  }
}

}  // namespace

void add_codec_cases(std::vector<Case>& cases) {
  add_fixed_point(cases);
  add_quantize(cases);
}

}  // namespace lithe::registry
