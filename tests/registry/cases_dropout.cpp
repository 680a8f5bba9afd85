#include "registry/registry.h"
#include "tensor/ops/dropout_mask.h"

namespace lithe::registry {

void add_dropout_cases(std::vector<Case>& cases) {
  struct Size {
    Shape shape;
    DropoutAttrs attrs;
  };
  const Size sizes[] = {{{}, {0.5, 1}},
                        {{1}, {0.1, 2}},
                        {{7}, {0.5, 3}},
                        {{3, 5}, {0.9, 4}},
                        {{128}, {0.1, 5}},
                        {{129}, {0.25, 0xffffffffffffffffull}},
                        {{0, 4}, {0.1, 7}},
                        {{2, 1, 3, 1, 5, 2}, {0.01, 8}},
                        {{5, 4099}, {0.1, 9}},
                        {{64, 3}, {0.999999, 10}},
                        // rows of 8 bits an element
                        {{}, {0.5, 11, 8}},
                        {{3, 16}, {0.1, 12, 8}},
                        {{7, 5}, {0.3, 13, 8}},
                        {{2, 3, 4, 77}, {0.5, 14, 8}},
                        {{0, 4}, {0.1, 15, 8}},
                        {{2, 0}, {0.1, 15, 8}},
                        {{2, 2, 65, 384}, {0.1, 16, 8}},
                        {{9, 520}, {0.0001, 17, 8}},
                        {{64, 24}, {0.9999, 18, 8}}};
  for (const Size& s : sizes) {
    cases.push_back({.op = &dropout_op,
                     .name = fmt::format("{} p {} key {} bits {}", s.shape, s.attrs.p, s.attrs.key,
                                         s.attrs.bits),
                     .inputs = {{.shape = s.shape}, {.shape = {2}, .fill = Fill::rng}},
                     .build = [attrs = s.attrs](Graph& g, std::span<const ValueId> in) {
                       return std::vector<ValueId>{dropout(g, in[0], in[1], attrs)};
                     }});
    for (const bool packed : {false, true}) {
      for (const OpDef* op : {&dropout_mask_op, &dropout_apply_op}) {
        cases.push_back(
            {.op = op,
             .name = fmt::format("{} p {} key {} bits {}{}", s.shape, s.attrs.p, s.attrs.key,
                                 s.attrs.bits, packed ? " packed" : ""),
             .inputs = {{.shape = s.shape}, {.shape = {2}, .fill = Fill::rng}},
             .build = [attrs = s.attrs, packed](Graph& g, std::span<const ValueId> in) {
               const ValueId mask = dropout_mask(g, in[1], attrs, g.shape(in[0]), packed);
               return std::vector<ValueId>{dropout_apply(g, in[0], mask, attrs, packed), mask};
             }});
      }
    }
  }
}

}  // namespace lithe::registry
