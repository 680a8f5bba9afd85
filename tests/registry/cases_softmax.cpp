#include "registry/registry.h"
#include "tensor/ops/softmax.h"

namespace lithe::registry {

void add_softmax_cases(std::vector<Case>& cases) {
  struct Size {
    Shape shape;
    SoftmaxAttrs attrs{};
    bool masked = false;
  };
  const Size sizes[] = {
      {{1}},
      {{7}},
      {{5, 1}},
      {{3, 17}},
      {{2, 2, 5, 9}, {.scale = 0.125}},
      {{3, 33}, {.scale = -1.5}},
      {{0, 4}},
      {{4, 0}},
      {{5, 5}, {.scale = 0.5, .causal = true}},
      {{2, 3, 7, 7}, {.causal = true}},
      {{2, 3, 9}, {.causal = true}},  // earlier keys from a cache
      {{2, 9, 3}, {.causal = true}},  // rows that see nothing
      {{2, 3, 5, 9}, {.scale = 0.3}, true},
      {{3, 1}, {}, true},
      {{2, 6, 6}, {.scale = 0.7, .causal = true}, true},
      {{1, 2, 2, 70, 300}, {.scale = 0.1}},
      {{3, 40, 333}, {.scale = 0.1}, true},
  };
  for (const Size& s : sizes) {
    std::vector<Input> inputs = {{.shape = s.shape}};
    if (s.masked) {
      inputs.push_back({.shape = {s.shape[0], s.shape.back()}, .fill = Fill::mask});
    }
    cases.push_back({.op = &softmax_op,
                     .name = fmt::format("{} scale {}{}{}", s.shape, s.attrs.scale,
                                         s.attrs.causal ? " causal" : "", s.masked ? " mask" : ""),
                     .inputs = inputs,
                     .build = [attrs = s.attrs](Graph& g, std::span<const ValueId> in) {
                       const ValueId mask = in.size() > 1 ? in[1] : kNoValue;
                       return std::vector<ValueId>{softmax(g, in[0], attrs, mask)};
                     }});
  }
}

}  // namespace lithe::registry
