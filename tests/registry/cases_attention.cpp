#include <array>

#include "registry/registry.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/layout.h"

namespace lithe::registry {
namespace {

std::string describe(const AttentionAttrs& attrs, bool masked) {
  return fmt::format("scale {}{}{} dropout {}", attrs.scale, attrs.causal ? " causal" : "",
                     masked ? " mask" : "", attrs.dropout);
}

void add_mask_and_rng(std::vector<Input>& inputs, const Shape& k, const AttentionAttrs& attrs,
                      bool masked) {
  if (masked) {
    inputs.push_back({.shape = {k[0], k[1]}, .fill = Fill::mask});
  }
  if (attrs.dropout > 0) {
    inputs.push_back({.shape = {2}, .fill = Fill::rng});
  }
}

// Backward does without attention's output.
void drop_output(Graph& g) {
  for (const NodeId n : g.order()) {
    if (g.node(n).op == &attention_grad_op) {
      g.replace_input(n, kAttentionGradOutput, kNoValue);
    }
  }
}

// The gradients of a node. Without attention's output those of the scores add up to 0 over the
// keys, and so do the sums for the key's bias: they are compared as one with the others.
std::vector<ValueId> gradients_of(Graph& g, NodeId n, bool joins_sums) {
  const auto outputs = g.outputs(n);
  std::vector<ValueId> out(outputs.begin(), outputs.end());
  if (joins_sums) {
    out = {out[0], concat(g, std::span<const ValueId>(out).subspan(1), 0)};
  }
  return out;
}

// The backward pass alone; `derives` without attention's output. The log-sum-exp is no true one;
// above 0.5, it keeps the probabilities within what fp16 holds.
void add_gradient_case(std::vector<Case>& cases, const char* name, const Shape& q, const Shape& k,
                       const AttentionGradAttrs& attrs, bool masked, bool derives = false) {
  std::vector<Input> inputs(6, {.shape = q});
  inputs[1].shape = inputs[2].shape = k;
  inputs[4] = {.shape = {q[0], q[2], q[1]}, .fill = Fill::positive, .widened = true};
  if (derives) {
    inputs.erase(inputs.begin() + kAttentionGradOutput);
  }
  add_mask_and_rng(inputs, k, attrs.forward, masked);
  cases.push_back({.op = &attention_grad_op,
                   .name = fmt::format("{}{} {} {} {}", name, derives ? " no output" : "", q, k,
                                       describe(attrs.forward, masked)),
                   .inputs = inputs,
                   .build = [attrs, masked, derives](Graph& g, std::span<const ValueId> in) {
                     const size_t lse = derives ? 3 : 4;
                     const ValueId given = derives ? kNoValue : in[3];
                     const ValueId mask = masked ? in[lse + 2] : kNoValue;
                     const ValueId rng = attrs.forward.dropout > 0 ? in.back() : kNoValue;
                     const std::array<ValueId, 8> all = {in[0],   in[1],       in[2], given,
                                                         in[lse], in[lse + 1], mask,  rng};
                     return gradients_of(g, g.emit_node(attention_grad_op, all, attrs),
                                         derives && attrs.bias_sums);
                   }});
}

// dq, dk and dv in one output, with and without their sums.
void add_packed_gradients(std::vector<Case>& cases) {
  struct Size {
    Shape q;
    AttentionAttrs attrs{};
    bool masked = false;
  };
  const Size sizes[] = {
      {{1, 1, 1, 1}},
      {{2, 6, 4, 5}, {.scale = 0.45}},
      {{2, 7, 4, 3}, {0.5, true, 0.5, 0xfedcba9876543210ull}, true},
      {{1, 270, 2, 12}, {.scale = 0.3, .causal = true}},
      {{1, 20, 2, 64}, {.scale = -0.06}},  // the plain kernels up to here
      {{0, 4, 2, 3}},
      {{2, 0, 2, 64}},
      // warpgroups
      {{2, 197, 2, 64}, {.scale = 0.125}},
      {{3, 200, 2, 64}, {0.125, true, 0.2, 5}, true},
      {{70, 130, 2, 64}, {.scale = 0.125}, true},
      {{3, 65, 3, 8}, {.scale = 0.3}},
      {{1, 64, 1, 64}, {.scale = 0.125}},
      {{1, 300, 2, 40}, {.scale = 0.16, .causal = true}, true},
      {{1, 72, 2, 40}, {.scale = 0.16, .dropout = 0.1, .dropout_key = 4}},
      // dropout over odd rows; warps: dq of one task, of several and joined, larger heads
      {{2, 197, 2, 64}, {.scale = 0.125, .dropout = 0.3, .dropout_key = 5}},
      {{1, 77, 2, 40}, {0.16, true, 0.1, 4}, true},
      {{1, 65, 2, 80}, {.scale = 0.11, .dropout = 0.5, .dropout_key = 1}, true},
      {{1, 300, 3, 80}, {.scale = 0.11, .causal = true}},
      {{35, 140, 2, 80}, {.scale = 0.11}},
      {{1, 130, 2, 128}, {0.09, true, 0.1, 2}, true},
      {{1, 129, 1, 256}, {.scale = 0.06}, true},
  };
  for (const Size& s : sizes) {
    for (const bool derives : {false, true}) {
      for (const bool sums : {false, true}) {
        add_gradient_case(cases, sums ? "packed sums" : "packed", s.q, s.q,
                          {.forward = s.attrs, .packed = true, .bias_sums = sums}, s.masked,
                          derives);
      }
    }
  }
}

// Some of dq, dk and dv, with dropout: where the kernels on warpgroups draw the mask in one kernel
// only, the query gradient's draws it; alone, each draws its own.
void add_partial_gradients(std::vector<Case>& cases) {
  struct Wanted {
    const char* name;
    bool dq, dk, dv;
  };
  const Wanted wanted[] = {{"dq", true, false, false},   {"dk", false, true, false},
                           {"dv", false, false, true},   {"dk dv", false, true, true},
                           {"dq dv", true, false, true}, {"dq dk dv", true, true, true}};
  struct Size {
    Shape q, k;
    AttentionAttrs attrs{};
    bool masked = false;
  };
  const Size sizes[] = {
      {{2, 72, 4, 64}, {2, 150, 2, 64}, {.scale = 0.125, .dropout = 0.25, .dropout_key = 8}},
      {{1, 200, 2, 32}, {1, 81, 1, 32}, {0.18, true, 0.1, 6}, true},
      {{1, 40, 2, 80}, {1, 100, 1, 80}, {.scale = 0.11, .dropout = 0.7, .dropout_key = 3}},
  };
  for (const Size& s : sizes) {
    for (const Wanted& w : wanted) {
      for (const bool derives : {false, true}) {
        add_gradient_case(cases, w.name, s.q, s.k,
                          {.forward = s.attrs, .dq = w.dq, .dk = w.dk, .dv = w.dv}, s.masked,
                          derives);
      }
    }
  }
}

}  // namespace

void add_attention_cases(std::vector<Case>& cases) {
  struct Size {
    Shape q, k;
    AttentionAttrs attrs{};
    bool masked = false;
  };
  const Size sizes[] = {
      {{1, 1, 1, 1}, {1, 1, 1, 1}},
      {{2, 6, 4, 5}, {2, 6, 4, 5}, {.scale = 0.45}},
      {{2, 3, 2, 16}, {2, 7, 2, 16}, {.scale = 0.25}},
      {{1, 50, 2, 16}, {1, 50, 2, 16}, {.scale = 0.25}},
      {{2, 5, 6, 7}, {2, 9, 2, 7}, {.scale = 0.4}},  // grouped heads
      {{2, 5, 6, 7}, {2, 9, 1, 7}, {.scale = 0.4}},
      {{2, 7, 2, 4}, {2, 7, 2, 4}, {.scale = 0.5, .causal = true}},
      {{1, 3, 2, 4}, {1, 9, 2, 4}, {.scale = 0.5, .causal = true}},  // earlier keys from a cache
      {{1, 9, 2, 4}, {1, 3, 2, 4}, {.scale = 0.5, .causal = true}},  // queries that see nothing
      {{2, 6, 2, 8}, {2, 9, 2, 8}, {.scale = 0.3}, true},
      {{3, 8, 4, 5}, {3, 8, 2, 5}, {.scale = 0.3, .causal = true}, true},
      {{2, 6, 2, 8}, {2, 9, 2, 8}, {.scale = 0.3, .dropout = 0.3, .dropout_key = 7}},
      {{2, 7, 4, 3}, {2, 7, 2, 3}, {0.5, true, 0.5, 0xfedcba9876543210ull}, true},
      {{0, 4, 2, 3}, {0, 5, 2, 3}},
      {{2, 0, 2, 3}, {2, 5, 2, 3}},
      {{2, 4, 2, 3}, {2, 0, 2, 3}},                       // no key at all
      {{1, 300, 1, 20}, {1, 17, 1, 20}, {.scale = 0.2}},  // several tiles of queries,
      {{1, 65, 2, 12}, {1, 530, 1, 12}, {.scale = 0.2, .dropout = 0.1, .dropout_key = 3}, true},
      {{1, 520, 1, 4}, {1, 520, 1, 4}, {.scale = 0.5, .causal = true}},  // of both
      // tensor cores: head dims with and without padding, whole and cut tiles, one and several
      // blocks of keys, more key heads than running blocks
      {{1, 128, 2, 64}, {1, 128, 2, 64}, {.scale = 0.125, .dropout = 0.1, .dropout_key = 5}},
      {{2, 197, 2, 64}, {2, 197, 2, 64}, {.scale = 0.125, .dropout = 0.3, .dropout_key = 5}},
      {{1, 100, 6, 64}, {1, 300, 2, 64}, {0.125, true, 0.2, 5}, true},
      {{70, 70, 2, 64}, {70, 140, 2, 64}, {.scale = 0.125}},
      {{70, 200, 2, 64}, {70, 260, 2, 64}, {0.125, true, 0.1, 5}, true},
      {{1, 300, 2, 40}, {1, 100, 1, 40}, {.scale = 0.16, .causal = true}},
      {{1, 40, 2, 72}, {1, 77, 1, 72}, {.scale = 0.12}},
      {{1, 65, 2, 80}, {1, 130, 2, 80}, {.scale = 0.11, .dropout = 0.5, .dropout_key = 1}},
      {{1, 33, 2, 96}, {1, 150, 2, 96}, {.scale = 0.1}},
      {{1, 65, 2, 128}, {1, 200, 2, 128}, {0.09, true, 0.1, 2}, true},
      {{1, 65, 2, 160}, {1, 140, 1, 160}, {.scale = 0.08, .dropout = 0.1, .dropout_key = 2}},
      {{1, 40, 2, 256}, {1, 129, 1, 256}, {.scale = 0.06}, true},
      // warpgroups: more tasks than running blocks, a short
      // last tile of queries and keys, queries that see nothing, a head dim cut off, nothing at all
      {{70, 200, 2, 64}, {70, 264, 2, 64}, {0.125, true, 0.2, 5}, true},
      {{2, 197, 2, 64}, {2, 197, 2, 64}, {.scale = 0.125}},
      {{1, 300, 2, 48}, {1, 104, 1, 48}, {0.14, true, 0.4, 9}},
      {{1, 72, 2, 8}, {1, 77, 1, 8}, {.scale = 0.3}, true},
      {{2, 0, 2, 64}, {2, 5, 2, 64}},
      {{2, 4, 2, 64}, {2, 0, 2, 64}},
      {{1, 20, 2, 64}, {1, 12, 1, 64}, {.scale = -0.06}},  // the plain kernel
      // dropout: rows that end within a block of sixteen random numbers, fewer keys than one, tiles
      // cut in queries and keys, grouped heads, more queries than keys, probabilities that are
      // rounded to the least and to a half
      {{2, 65, 4, 64}, {2, 193, 2, 64}, {.scale = 0.125, .dropout = 0.1, .dropout_key = 11}},
      {{1, 130, 2, 64}, {1, 9, 1, 64}, {.scale = 0.125, .dropout = 0.5, .dropout_key = 12}},
      {{1, 7, 3, 16}, {1, 71, 3, 16}, {.scale = 0.25, .dropout = 0.001, .dropout_key = 13}, true},
      {{1, 150, 2, 24}, {1, 83, 1, 24}, {0.2, true, 0.6, 14}, true},
      {{3, 96, 2, 64}, {3, 96, 2, 64}, {0.125, true, 0.1, 15}},
      {{1, 50, 2, 72}, {1, 47, 1, 72}, {0.12, true, 0.3, 16}, true},
      {{1, 37, 2, 256}, {1, 90, 1, 256}, {.scale = 0.06, .dropout = 0.2, .dropout_key = 17}},
  };
  for (const Size& s : sizes) {
    std::vector<Input> inputs = {{.shape = s.q}, {.shape = s.k}, {.shape = s.k}};
    add_mask_and_rng(inputs, s.k, s.attrs, s.masked);
    const size_t at = cases.size();
    cases.push_back(
        {.op = &attention_op,
         .name = fmt::format("{} {} {}", s.q, s.k, describe(s.attrs, s.masked)),
         .inputs = inputs,
         .build = [attrs = s.attrs, masked = s.masked](Graph& g, std::span<const ValueId> in) {
           const ValueId mask = masked ? in[3] : kNoValue;
           const ValueId rng = attrs.dropout > 0 ? in.back() : kNoValue;
           return std::vector<ValueId>{attention(g, in[0], in[1], in[2], attrs, mask, rng)};
         }});
    Case derived = cases[at];
    derived.name += " no output";
    derived.rewrite = drop_output;
    cases.push_back(std::move(derived));
  }
  add_packed_gradients(cases);
  add_partial_gradients(cases);
}

}  // namespace lithe::registry
