// Attention that makes codes of its operands, and that reads them: every kernel that there is,
// codes in every half of the word that holds a scale, all gradients and some.
#include <array>

#include "registry/registry.h"
#include "tensor/ops/attention_codes.h"
#include "tensor/ops/fuse_codecs.h"

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

// Attention codes what it reads, as the codec pass and its rewriting would have it.
void code_operands(Graph& g, const SavedCode& code) {
  const Phase phase = g.phase();
  for (const NodeId n : g.order()) {
    if (g.node(n).op == &attention_op) {
      g.set_cursor(n);
      g.set_phase(g.node(n).phase);
      for (int i = 0; i < 3; ++i) {
        quantize_encode(g, g.in(n, i), code.quantize());
      }
    }
  }
  g.set_cursor(kNoNode);
  g.set_phase(phase);
  fuse_codecs(g);
}

// The log-sum-exp, which is in no definition, by the gradients that follow from it.
void add_coded_attention(std::vector<Case>& cases, const Size& s) {
  cases.push_back(
      {.op = &attention_op,
       .name = "coded " + describe(s),
       .inputs = {{.shape = s.q},
                  {.shape = s.k},
                  {.shape = s.k},
                  {.shape = {s.k[0], s.k[1]}, .fill = Fill::mask},
                  {.shape = {2}, .fill = Fill::rng}},
       .build = [attrs = s.attrs, masked = s.masked](
                    Graph& g, std::span<const ValueId> in) -> std::vector<ValueId> {
         return {attention(g, in[0], in[1], in[2], attrs, masked ? in[3] : kNoValue, in[4])};
       },
       .rewrite = [code = s.code](Graph& g) { code_operands(g, code); }});
}

// Exact operands: their codes are to agree to the bit.
void add_forward(std::vector<Case>& cases, const Size& s) {
  const auto fixed = [](const Shape& shape) {
    return Input{.shape = shape, .differentiable = false};
  };
  cases.push_back({.op = &attention_codes_op,
                   .name = describe(s),
                   .inputs = {fixed(s.q),
                              fixed(s.k),
                              fixed(s.k),
                              {.shape = {s.k[0], s.k[1]}, .fill = Fill::mask},
                              {.shape = {2}, .fill = Fill::rng}},
                   .build = [attrs = AttentionCodesAttrs{s.attrs, s.code}, masked = s.masked](
                                Graph& g, std::span<const ValueId> in) -> std::vector<ValueId> {
                     const std::array<ValueId, 5> inputs = {
                         in[0], in[1], in[2], masked ? in[3] : kNoValue,
                         attrs.attention.dropout > 0 ? in[4] : kNoValue};
                     const NodeId n = g.emit_node(attention_codes_op, inputs, attrs);
                     std::vector<ValueId> out = {g.output(n, 0)};
                     for (int i = kAttentionCodes; i < g.node(n).output_count; ++i) {
                       out.push_back(g.output(n, i));
                     }
                     return out;
                   }});
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
                     return {g.outputs(n).begin(), g.outputs(n).end()};
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
      {{1, 65, 2, 128}, {1, 40, 2, 128}, quantized(8, 128), {0.09, false, 0.1, 2}, true},
      {{1, 20, 2, 64}, {1, 12, 1, 64}, quantized(8, 64), {.scale = -0.06}},
      // nothing
      {{0, 4, 2, 64}, {0, 5, 2, 64}, quantized(8, 64)},
      {{2, 0, 2, 64}, {2, 5, 2, 64}, quantized(8, 64)},
      {{2, 4, 2, 64}, {2, 0, 2, 64}, quantized(8, 64)},
      {{2, 4, 2, 80}, {2, 0, 2, 80}, quantized(8, 16)},
  };
  for (const Size& s : sizes) {
    add_forward(cases, s);
    for (const bool derives : {false, true}) {
      add_gradient(cases, "all", s, {.forward = s.attrs}, derives);
      if (s.q == s.k) {
        add_gradient(cases, "packed", s, {.forward = s.attrs, .packed = true}, derives);
      }
    }
  }
  // Keys that tasks of few queries code, and with causality tasks that meet few of them.
  const Size shares[] = {
      {{2, 1, 4, 64}, {2, 300, 2, 64}, quantized(8, 64), {.scale = 0.125}, true},
      {{1, 300, 2, 64}, {1, 65, 2, 64}, quantized(8, 64), {0.125, true, 0.2, 5}},
      {{1, 193, 2, 64}, {1, 130, 1, 64}, quantized(8, 64), {0.125, true}, true},
      {{2, 66, 2, 64}, {2, 257, 2, 64}, quantized(8, 64), {0.125, true}},
      {{2, 128, 4, 32}, {2, 256, 2, 32}, quantized(8, 32, DType::f16), {0.2, true, 0.1, 3}, true},
  };
  for (const Size& s : shares) {
    add_forward(cases, s);
    add_coded_attention(cases, s);
  }
  for (size_t i = 0; i < 6; ++i) {
    add_coded_attention(cases, sizes[i]);
  }
  const Size& some = sizes[2];
  for (const bool derives : {false, true}) {
    add_gradient(cases, "dq", some, {.forward = some.attrs, .dk = false, .dv = false}, derives);
    add_gradient(cases, "dk dv", some, {.forward = some.attrs, .dq = false}, derives);
    add_gradient(cases, "dv", some, {.forward = some.attrs, .dq = false, .dk = false}, derives);
  }
}

}  // namespace lithe::registry
