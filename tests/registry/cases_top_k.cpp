#include "registry/registry.h"
#include "tensor/ops/select_largest.h"
#include "tensor/ops/top_k.h"

namespace lithe::registry {

void add_top_k_cases(std::vector<Case>& cases) {
  struct Size {
    Shape shape;
    int64_t k;
  };
  const Size sizes[] = {{{1}, 1},       {{7}, 3},         {{5, 1}, 1}, {{3, 17}, 17},
                        {{2, 3, 9}, 4}, {{4, 5}, 0},      {{0, 6}, 2}, {{3, 1000}, 100},
                        {{9, 2049}, 1}, {{2, 9000}, 2500}};
  for (const Size& s : sizes) {
    for (const bool by_magnitude : {false, true}) {
      cases.push_back(
          {.op = &top_k_op,
           .name = fmt::format("{} k {}{}", s.shape, s.k, by_magnitude ? " by magnitude" : ""),
           .inputs = {{.shape = s.shape, .fill = Fill::distinct}},
           .build = [attrs = TopKAttrs{s.k, by_magnitude}](Graph& g, std::span<const ValueId> in) {
             const TopKOut out = top_k(g, in[0], attrs);
             return std::vector<ValueId>{out.values, out.indices};
           }});
    }
  }
  // Of the whole tensor: none, one, all, several ranges of a device, and ties (16 bits have many).
  const Size wholes[] = {{{1}, 1},          {{7}, 3},           {{}, 1},
                         {{3, 17}, 51},     {{2, 3, 9}, 5},     {{4, 5}, 0},
                         {{0, 6}, 0},       {{3, 1000}, 300},   {{5, 300, 7}, 1},
                         {{2, 9000}, 1800}, {{64, 4099}, 26233}};
  for (const Size& s : wholes) {
    for (const Fill fill : {Fill::distinct, Fill::normal}) {
      cases.push_back(
          {.op = &select_largest_op,
           .name = fmt::format("{} k {}{}", s.shape, s.k, fill == Fill::normal ? " normal" : ""),
           .inputs = {{.shape = s.shape, .fill = fill, .differentiable = false}},
           .build = [k = s.k](Graph& g, std::span<const ValueId> in) {
             const SelectLargestOut out = select_largest(g, in[0], {k});
             return std::vector<ValueId>{out.values, out.indices};
           }});
    }
  }
}

}  // namespace lithe::registry
