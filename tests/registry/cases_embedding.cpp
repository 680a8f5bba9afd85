#include "registry/registry.h"
#include "tensor/ops/embedding.h"

namespace lithe::registry {

void add_embedding_cases(std::vector<Case>& cases) {
  struct Size {
    int64_t vocabulary, hidden;
    Shape ids;
  };
  const Size sizes[] = {{1, 1, {1}},        {9, 6, {}},         {9, 6, {2, 4}},
                        {5, 1, {7}},        {3, 33, {2, 1, 9}}, {7, 5, {0}},
                        {7, 0, {3}},        {2, 300, {40}},     {50, 17, {3, 2, 1, 2, 2}},
                        {100, 257, {4, 31}}};
  for (const Size& s : sizes) {
    cases.push_back({.op = &embedding_op,
                     .name = fmt::format("V{} H{} ids {}", s.vocabulary, s.hidden, s.ids),
                     .inputs = {{.shape = {s.vocabulary, s.hidden}},
                                {.shape = s.ids, .fill = Fill::ids, .limit = s.vocabulary}},
                     .build = [](Graph& g, std::span<const ValueId> in) {
                       return std::vector<ValueId>{embedding(g, in[0], in[1])};
                     }});
  }
}

}  // namespace lithe::registry
