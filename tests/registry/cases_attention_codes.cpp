// Attention that reads codes of its operands: every kernel that there is, codes in every half of
// the word that holds a scale, all gradients and some.
#include <array>

#include "registry/registry.h"
#include "tensor/ops/attention_codes.h"
#include "tensor/ops/layout.h"

namespace lithe::registry {
namespace {

struct Size {
  Shape q, k;
  SavedCode code;
  AttentionAttrs attrs{};
  bool masked = false;
};

SavedCode quantized(int bits, int group, DType scale = DType::bf16) {
  return {.kind = SavedCode::Kind::quantized,
          .bits = static_cast<int8_t>(bits),
          .scale = scale,
          .group = group};
}

std::string describe(const Size& s) {
  return fmt::format("{} {} int{}/{} {}{}{} dropout {}", s.q, s.k, s.code.bits, s.code.group,
                     dtype_name(s.code.scale), s.attrs.causal ? " causal" : "",
                     s.masked ? " mask" : "", s.attrs.dropout);
}

void add_gradient(std::vector<Case>& cases, const std::string& name, const Size& s,
                  const AttentionGradAttrs& grad, bool derives) {
  const auto fixed = [](const Shape& shape) {
    return Input{.shape = shape, .differentiable = false};
  };
  std::vector<Input> inputs = {fixed(s.q), fixed(s.k), fixed(s.k), fixed(s.q), fixed(s.q)};
  // No true log-sum-exp, see add_attention_cases.
  inputs.push_back({.shape = {s.q[0], s.q[2], s.q[1]},
                    .fill = Fill::positive,
                    .differentiable = false,
                    .widened = true});
  if (s.masked) {
    inputs.push_back({.shape = {s.k[0], s.k[1]}, .fill = Fill::mask});
  }
  if (s.attrs.dropout > 0) {
    inputs.push_back({.shape = {2}, .fill = Fill::rng});
  }
  cases.push_back({.op = &attention_codes_grad_op,
                   .name = fmt::format("{}{} {}", name, derives ? " no output" : "", describe(s)),
                   .inputs = inputs,
                   .build = [code = s.code, grad, masked = s.masked, derives](
                                Graph& g, std::span<const ValueId> in) -> std::vector<ValueId> {
                     std::array<ValueId, 11> all;
                     for (size_t i = 0; i < 3; ++i) {
                       const QuantizeOut coded = quantize_encode(g, in[i], code.quantize());
                       all[i] = coded.codes;
                       all[8 + i] = coded.scales;
                     }
                     all[3] = derives ? kNoValue : in[3];
                     all[4] = in[5];
                     all[5] = in[4];
                     all[6] = masked ? in[6] : kNoValue;
                     all[7] = grad.forward.dropout > 0 ? in.back() : kNoValue;
                     const NodeId n = g.emit_node(attention_codes_grad_op, all,
                                                  AttentionCodesGradAttrs{grad, code});
                     std::vector<ValueId> out(g.outputs(n).begin(), g.outputs(n).end());
                     if (derives && grad.bias_sums) {  // see add_attention_cases
                       out = {out[0], concat(g, std::span<const ValueId>(out).subspan(1), 0)};
                     }
                     return out;
                   }});
}

}  // namespace

void add_attention_codes_cases(std::vector<Case>& cases) {
  const Size sizes[] = {
      // warpgroups: rows of an odd number of scales, cut tiles, groups of a part of a head
      {{2, 197, 3, 64}, {2, 197, 3, 64}, quantized(8, 64), {.scale = 0.125}},
      {{3, 65, 1, 64}, {3, 71, 1, 64}, quantized(8, 64), {.scale = 0.125}, true},
      {{2, 200, 2, 64}, {2, 200, 2, 64}, quantized(8, 64, DType::f16), {0.125, true, 0.2, 5}, true},
      {{1, 130, 4, 64}, {1, 300, 2, 64}, quantized(8, 32), {.scale = 0.125}, true},
      {{1, 7, 3, 16}, {1, 71, 3, 16}, quantized(8, 16), {0.25, false, 0.1, 13}, true},
      {{1, 150, 3, 40}, {1, 83, 1, 40}, quantized(8, 8), {0.2, true, 0.6, 14}, true},
      {{1, 72, 2, 48}, {1, 140, 1, 48}, quantized(8, 16, DType::f32), {0.14, false, 0.1, 9}},
      {{70, 130, 3, 64}, {70, 130, 3, 64}, quantized(8, 64), {0.125, false, 0.1, 15}, true},
      {{70, 130, 2, 64}, {70, 140, 2, 64}, quantized(8, 64, DType::f32), {.scale = 0.125}},
      {{1, 9, 1, 8}, {1, 5, 1, 8}, quantized(8, 8), {.scale = 0.3}},
      // decoded ahead
      {{2, 65, 2, 64}, {2, 70, 2, 64}, quantized(4, 64), {0.125, true, 0.2, 5}, true},
      {{1, 33, 2, 80}, {1, 77, 1, 80}, quantized(8, 16), {.scale = 0.11}},
      {{2, 66, 2, 80}, {2, 66, 2, 80}, quantized(8, 16), {0.1, true, 0.2, 5}, true},
      {{1, 67, 3, 64}, {1, 67, 3, 64}, quantized(4, 64), {.scale = 0.125}},
      {{1, 65, 2, 128}, {1, 40, 2, 128}, quantized(8, 128), {0.09, false, 0.1, 2}, true},
      {{1, 20, 2, 64}, {1, 12, 1, 64}, quantized(8, 64), {.scale = -0.06}},
      // nothing
      {{0, 4, 2, 64}, {0, 5, 2, 64}, quantized(8, 64)},
      {{2, 0, 2, 64}, {2, 5, 2, 64}, quantized(8, 64)},
      {{2, 4, 2, 64}, {2, 0, 2, 64}, quantized(8, 64)},
      {{2, 4, 2, 80}, {2, 0, 2, 80}, quantized(8, 16)},
  };
  for (const Size& s : sizes) {
    for (const bool derives : {false, true}) {
      add_gradient(cases, "all", s, {.forward = s.attrs}, derives);
      if (s.q == s.k) {
        add_gradient(cases, "packed", s, {.forward = s.attrs, .packed = true}, derives);
        add_gradient(cases, "packed sums", s,
                     {.forward = s.attrs, .packed = true, .bias_sums = true}, derives);
      }
    }
  }
  const Size& some = sizes[2];
  for (const bool derives : {false, true}) {
    add_gradient(cases, "dq", some, {.forward = some.attrs, .dk = false, .dv = false}, derives);
    add_gradient(cases, "dk dv", some, {.forward = some.attrs, .dq = false}, derives);
    add_gradient(cases, "dv", some, {.forward = some.attrs, .dq = false, .dk = false}, derives);
  }
}

}  // namespace lithe::registry
