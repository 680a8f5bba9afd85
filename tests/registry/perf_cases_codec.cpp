// What saved activations of BERT-base on 32 passages of 384 tokens pass: codes by passes of their
// own and by fused ones. Of two cases, one the beginning of the other, the difference is the rest.
#include <array>
#include <cmath>

#include "registry/modes.h"
#include "tensor/ops/activation_codes.h"
#include "tensor/ops/attention_codes.h"
#include "tensor/ops/dropout_mask.h"
#include "tensor/ops/linear_activation.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/normalized_rows.h"
#include "tensor/ops/residual_norm_codes.h"
#include "tensor/ops/select_largest.h"
#include "tensor/ops/top_k.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

const Shape kWide{12288, 3072};
const Shape kRows{12288, 768};

// Codes have no gradient.
Input exact(const Shape& shape) { return {.shape = shape, .differentiable = false}; }

// GELU's input, a norm's, an operand of attention. "both": and decoded.
void add_passes(std::vector<Case>& cases) {
  for (const bool both : {false, true}) {
    const std::string way = both ? "large both " : "large ";
    const FixedPointAttrs gelu{.integer = 2, .fraction = 1};
    cases.push_back({&fixed_point_encode_op,
                     fmt::format("{}{} q2.1", way, kWide),
                     {exact(kWide)},
                     [both, gelu](Graph& g, Values v) -> Outputs {
                       const ValueId codes = fixed_point_encode(g, v[0], gelu);
                       return {both ? fixed_point_decode(g, codes, gelu, g.dtype(v[0])) : codes};
                     }});
    for (const QuantizeAttrs& attrs : {QuantizeAttrs{.bits = 8}, QuantizeAttrs{.bits = 4},
                                       QuantizeAttrs{.bits = 8, .group = 0}}) {
      cases.push_back({&quantize_encode_op,
                       fmt::format("{}{} int{}/{}", way, kRows, attrs.bits, attrs.group),
                       {exact(kRows)},
                       [both, attrs](Graph& g, Values v) -> Outputs {
                         const QuantizeOut coded = quantize_encode(g, v[0], attrs);
                         if (both) {
                           return {quantize_decode(g, coded, attrs, g.dtype(v[0]))};
                         }
                         return {coded.codes, coded.scales};
                       }});
    }
  }
}

// The feed-forward part's products with GELU's input in 4 bits, of BERT-base and of ViT-B/16 on 128
// images: in one kernel, and by the library and passes behind it. The gradient's cases code what is
// kept too.
void add_products(std::vector<Case>& cases) {
  const SavedCode code{.kind = SavedCode::Kind::fixed_point,
                       .fixed = {.integer = 2, .fraction = 1}};
  for (const int64_t rows : {int64_t{12288}, int64_t{128 * 197}}) {
    const Shape x{rows, 768};
    const Shape wide{rows, 3072};
    for (const bool apart : {false, true}) {
      const char* way = apart ? "apart" : "in registers";
      cases.push_back({apart ? &activation_codes_op : &linear_activation_codes_op,
                       fmt::format("large product {} {} gelu q2.1", x, way),
                       {exact(x), exact({3072, 768}), exact({3072})},
                       [=](Graph& g, Values v) -> Outputs {
                         const ActivationCodesAttrs attrs{Activation::gelu, code, {}};
                         NodeId n = kNoNode;
                         if (apart) {
                           const std::array<ValueId, 1> y = {linear(g, v[0], v[1], v[2]).y};
                           n = g.emit_node(activation_codes_op, y, attrs);
                         } else {
                           n = g.emit_node(linear_activation_codes_op, v, attrs);
                         }
                         return {g.output(n, 0), g.output(n, 1)};
                       }});
      cases.push_back({apart ? &activation_codes_grad_op : &matmul_activation_codes_grad_op,
                       fmt::format("large product {} {} gelu gradient q2.1", x, way),
                       {exact(x), exact({768, 3072}), exact(wide)},
                       [=](Graph& g, Values v) -> Outputs {
                         const ActivationCodesGradAttrs attrs{{Activation::gelu, true}, code};
                         const ValueId codes = fixed_point_encode(g, v[2], code.fixed);
                         NodeId n = kNoNode;
                         if (apart) {
                           const ValueId dy = matmul(g, v[0], v[1]);
                           n = g.emit_node(activation_codes_grad_op, std::array{dy, codes}, attrs);
                         } else {
                           n = g.emit_node(matmul_activation_codes_grad_op,
                                           std::array{v[0], v[1], codes}, attrs);
                         }
                         return {g.output(n, 0), g.output(n, 1)};
                       }});
    }
  }
}

// GELU and its gradient with the bias's, its input in 4 bits, or in codes with scales: by passes of
// its own too.
void add_activations(std::vector<Case>& cases) {
  struct Format {
    const char* name;
    SavedCode code;
  };
  const Format formats[] = {
      {"q2.1", {.kind = SavedCode::Kind::fixed_point, .fixed = {.integer = 2, .fraction = 1}}},
      {"int8/64", {.kind = SavedCode::Kind::quantized}},
      {"int4/64", {.kind = SavedCode::Kind::quantized, .bits = 4}}};
  for (const auto& [name, code] : formats) {
    for (const char* part : {"", " and gradient", " and gradient, decoded"}) {
      const bool backward = *part != 0;
      const bool apart = std::string_view(part).ends_with("decoded");
      if (apart && code.kind == SavedCode::Kind::fixed_point) {
        continue;
      }
      cases.push_back(
          {&activation_codes_op,
           fmt::format("large gelu {}{}", name, part),
           {exact(kWide), exact(kWide)},
           [=](Graph& g, Values v) -> Outputs {
             const std::array<ValueId, 1> x = {v[0]};
             const NodeId n = g.emit_node(activation_codes_op, x,
                                          ActivationCodesAttrs{Activation::gelu, code, {}});
             Outputs out = {g.output(n, 0)};
             if (!backward) {
               return out;
             }
             const ActivationAttrs grad{Activation::gelu, true};
             std::vector<ValueId> in = {v[1]};
             in.insert(in.end(), g.outputs(n).begin() + 1, g.outputs(n).end());
             NodeId made = kNoNode;
             if (apart) {
               in = {v[1], emit_decode(g, std::span(in).subspan(1), code, g.dtype(v[1]))};
               made = g.emit_node(activation_grad_op, in, grad);
             } else {
               made =
                   g.emit_node(activation_codes_grad_op, in, ActivationCodesGradAttrs{grad, code});
             }
             return {out[0], g.output(made, 0), g.output(made, 1)};
           }});
    }
  }
  cases.push_back({&activation_grad_op,
                   "large gelu and gradient, exact",
                   {exact(kWide), exact(kWide)},
                   [](Graph& g, Values v) -> Outputs {
                     const ValueId y = activation(g, v[0], Activation::gelu);
                     const std::array<ValueId, 2> in = {v[1], v[0]};
                     const NodeId grad = g.emit_node(activation_grad_op, in,
                                                     ActivationAttrs{Activation::gelu, true});
                     return {y, g.output(grad, 0), g.output(grad, 1)};
                   }});
}

// Dropout, residual and norm, and their gradients but the scale's.
void add_norms(std::vector<Case>& cases) {
  const Input row = exact({768});
  const Input full = exact(kRows);
  const DropoutAttrs drops{.p = 0.1, .key = 3};
  const ResidualNormGradAttrs wanted{
      .dropout = drops, .sum = true, .y = true, .beta = true, .bias = true};
  for (const int bits : {0, 4, 8}) {
    for (const bool backward : {false, true}) {
      cases.push_back(
          {bits == 0 ? &residual_norm_op : &residual_norm_codes_op,
           fmt::format("large norm {}{}", bits == 0 ? "exact" : fmt::format("int{}/64", bits),
                       backward ? " and gradient" : ""),
           {full, full, row, row, {.shape = {2}, .fill = Fill::rng}, full},
           [=](Graph& g, Values v) -> Outputs {
             const SavedCode code{.kind = SavedCode::Kind::quantized,
                                  .bits = static_cast<int8_t>(bits == 0 ? 8 : bits)};
             const std::array<ValueId, 5> in = {v[0], v[1], v[2], v[3], v[4]};
             const ResidualNormAttrs attrs{.dropout = drops};
             const NodeId n = bits == 0 ? g.emit_node(residual_norm_op, in, attrs)
                                        : g.emit_node(residual_norm_codes_op, in,
                                                      ResidualNormCodesAttrs{attrs, code, false});
             const auto at = [&](int i) { return g.output(n, i); };
             Outputs out = {at(0)};
             if (backward) {
               const NodeId grad =
                   bits == 0
                       ? g.emit_node(residual_norm_grad_op,
                                     std::array{v[5], at(1), at(2), at(3), v[2], kNoValue, v[4]},
                                     wanted)
                       : g.emit_node(
                             residual_norm_codes_grad_op,
                             std::array{v[5], at(3), at(1), at(2), v[2], kNoValue, v[4], at(4)},
                             ResidualNormCodesGradAttrs{wanted, code});
               const auto gradients = g.outputs(grad);
               out.insert(out.end(), gradients.begin(), gradients.end());
             }
             return out;
           }});
    }
  }
}

// What SlimFit's code keeps: stored masks, and the largest tenth of all normalised elements.
void add_original(std::vector<Case>& cases) {
  const Input row{
      .shape = {kRows[0]}, .fill = Fill::positive, .differentiable = false, .widened = true};
  const DropoutAttrs drops{.p = 0.1, .key = 3};
  for (const bool packed : {false, true}) {
    cases.push_back({&dropout_mask_op,
                     packed ? "large mask, bits" : "large mask, bytes",
                     {{.shape = {2}, .fill = Fill::rng}},
                     [=](Graph& g, Values v) -> Outputs {
                       return {dropout_mask(g, v[0], drops, kRows, packed)};
                     }});
    cases.push_back({&dropout_apply_op,
                     packed ? "large mask and its use, bits" : "large mask and its use, bytes",
                     {exact(kRows), {.shape = {2}, .fill = Fill::rng}},
                     [=](Graph& g, Values v) -> Outputs {
                       const ValueId mask = dropout_mask(g, v[1], drops, kRows, packed);
                       return {dropout_apply(g, v[0], mask, drops, packed)};
                     }});
  }
  cases.push_back(
      {&normalize_rows_op,
       fmt::format("large {}", kRows),
       {exact(kRows), row, row},
       [](Graph& g, Values v) -> Outputs { return {normalize_rows(g, v[0], v[1], v[2])}; }});
  cases.push_back({&spread_rows_op,
                   fmt::format("large {}", kRows),
                   {exact(kRows), row},
                   [](Graph& g, Values v) -> Outputs { return {spread_rows(g, v[0], v[1])}; }});
  for (const bool both : {false, true}) {
    cases.push_back({&select_largest_op,
                     both ? "large both a tenth" : "large a tenth",
                     {exact(kRows)},
                     [both](Graph& g, Values v) -> Outputs {
                       const SelectLargestOut out = select_largest(g, v[0], {kRows.numel() / 10});
                       if (both) {
                         return {g.emit(top_k_grad_op, {out.values, out.indices},
                                        TopKGradAttrs{kRows.numel()})};
                       }
                       return {out.values, out.indices};
                     }});
  }
}

// Query, key, value and output of attention, as neighbours that a device may run as one.
void add_neighbours(std::vector<Case>& cases) {
  const QuantizeAttrs attrs{.bits = 8};
  const Input full = exact(kRows);
  for (const bool both : {false, true}) {
    cases.push_back({&quantize_encode_op,
                     both ? "large both 4 of int8/64" : "large 4 of int8/64",
                     {full, full, full, full},
                     [both, attrs](Graph& g, Values v) -> Outputs {
                       std::vector<QuantizeOut> coded;
                       for (ValueId x : v) {
                         coded.push_back(quantize_encode(g, x, attrs));
                       }
                       Outputs out;
                       for (const QuantizeOut& c : coded) {
                         out.push_back(both ? quantize_decode(g, c, attrs, g.dtype(v[0]))
                                            : c.codes);
                       }
                       return out;
                     }});
  }
}

// Attention's backward pass without its output, from int8 operands that are decoded ahead or on the
// way: BERT-base on passages, ViT-B/16. Both encode first.
void add_attention(std::vector<Case>& cases) {
  struct Size {
    int64_t batch, tokens;
    bool is_bert;
  };
  const SavedCode code{.kind = SavedCode::Kind::quantized};
  for (const Size s : {Size{32, 384, true}, Size{128, 197, false}}) {
    for (const auto& [fused, sums] : {std::pair{false, false}, {true, false}, {true, true}}) {
      const Shape shape{s.batch, s.tokens, 12, 64};
      AttentionAttrs attrs{.scale = 0.125};
      std::vector<Input> inputs(4, exact(shape));
      inputs.push_back({.shape = {s.batch, 12, s.tokens},
                        .fill = Fill::positive,
                        .differentiable = false,
                        .widened = true});
      if (s.is_bert) {
        attrs.dropout = 0.1;
        attrs.dropout_key = 5;
        inputs.push_back({.shape = {s.batch, s.tokens}, .fill = Fill::mask});
        inputs.push_back({.shape = {2}, .fill = Fill::rng});
      }
      cases.push_back(
          {fused ? &attention_codes_grad_op : &attention_grad_op,
           fmt::format("large B{} T{} int8/64 no output{}", s.batch, s.tokens, sums ? " sums" : ""),
           inputs, [attrs, fused = fused, sums = sums, code](Graph& g, Values v) -> Outputs {
             const AttentionGradAttrs grad{.forward = attrs, .packed = true, .bias_sums = sums};
             std::array<ValueId, 11> all;
             all.fill(kNoValue);
             for (size_t i = 0; i < 3; ++i) {
               const QuantizeOut coded = quantize_encode(g, v[i], code.quantize());
               all[i] = coded.codes;
               all[8 + i] = coded.scales;
             }
             for (size_t i = 0; i < 3 && !fused; ++i) {
               all[i] = quantize_decode(g, {all[i], all[8 + i]}, code.quantize(), g.dtype(v[0]));
             }
             all[4] = v[4];
             all[5] = v[3];
             all[6] = v.size() > 5 ? v[5] : kNoValue;
             all[7] = v.size() > 5 ? v[6] : kNoValue;
             if (fused) {
               const NodeId n =
                   g.emit_node(attention_codes_grad_op, all, AttentionCodesGradAttrs{grad, code});
               return {g.outputs(n).begin(), g.outputs(n).end()};
             }
             const std::span<const ValueId> plain(all.data(), 8);
             return {g.output(g.emit_node(attention_grad_op, plain, grad), 0)};
           }});
    }
  }
}

}  // namespace

void add_codec_perf_cases(std::vector<Case>& cases) {
  add_passes(cases);
  add_activations(cases);
  add_products(cases);
  add_original(cases);
  add_norms(cases);
  add_neighbours(cases);
  add_attention(cases);
}

}  // namespace lithe::registry
