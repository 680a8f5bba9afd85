#include "registry/registry.h"
#include "tensor/ops/attention.h"

namespace lithe::registry {

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
      // warpgroups: rows of whole blocks of random numbers, more tasks than running blocks, a short
      // last tile of queries and keys, queries that see nothing, a head dim cut off, nothing at all
      {{70, 200, 2, 64}, {70, 264, 2, 64}, {0.125, true, 0.2, 5}, true},
      {{2, 197, 2, 64}, {2, 197, 2, 64}, {.scale = 0.125}},
      {{1, 300, 2, 48}, {1, 100, 1, 48}, {0.14, true, 0.4, 9}},
      {{1, 72, 2, 8}, {1, 77, 1, 8}, {.scale = 0.3}, true},
      {{2, 0, 2, 64}, {2, 5, 2, 64}},
      {{2, 4, 2, 64}, {2, 0, 2, 64}},
      {{1, 20, 2, 64}, {1, 12, 1, 64}, {.scale = -0.06}},  // the plain kernel
  };
  for (const Size& s : sizes) {
    std::vector<Input> inputs = {{.shape = s.q}, {.shape = s.k}, {.shape = s.k}};
    if (s.masked) {
      inputs.push_back({.shape = {s.k[0], s.k[1]}, .fill = Fill::mask});
    }
    if (s.attrs.dropout > 0) {
      inputs.push_back({.shape = {2}, .fill = Fill::rng});
    }
    cases.push_back(
        {.op = &attention_op,
         .name =
             fmt::format("{} {} scale {}{}{} dropout {}", s.q, s.k, s.attrs.scale,
                         s.attrs.causal ? " causal" : "", s.masked ? " mask" : "", s.attrs.dropout),
         .inputs = inputs,
         .build = [attrs = s.attrs, masked = s.masked](Graph& g, std::span<const ValueId> in) {
           const ValueId mask = masked ? in[3] : kNoValue;
           const ValueId rng = attrs.dropout > 0 ? in.back() : kNoValue;
           return std::vector<ValueId>{attention(g, in[0], in[1], in[2], attrs, mask, rng)};
         }});
  }
}

}  // namespace lithe::registry
