#include "registry/registry.h"
#include "tensor/ops/embedding.h"

namespace lithe::registry {

void add_embedding_cases(std::vector<Case>& cases) {
  struct Size {
    int64_t vocabulary, hidden;
    Shape ids;
  };
  const Size sizes[] = {{1, 1, {1}},
                        {9, 6, {}},
                        {9, 6, {2, 4}},
                        {5, 1, {7}},
                        {3, 33, {2, 1, 9}},
                        {7, 5, {0}},
                        {7, 0, {3}},
                        {2, 300, {40}},
                        {50, 17, {3, 2, 1, 2, 2}},
                        {100, 257, {4, 31}},
                        // Rows looked up thousands of times, and some never.
                        {2, 24, {70, 43}},
                        {1, 8, {2049}},
                        {40, 136, {3000}},
                        {4000, 16, {3, 1100}},
                        // More ids than tiles of the smallest size (EmbeddingScratch).
                        {300, 8, {70000}}};
  for (const Size& s : sizes) {
    cases.push_back({.op = &embedding_op,
                     .name = fmt::format("V{} H{} ids {}", s.vocabulary, s.hidden, s.ids),
                     .inputs = {{.shape = {s.vocabulary, s.hidden}},
                                {.shape = s.ids, .fill = Fill::ids, .limit = s.vocabulary}},
                     .build = [](Graph& g, std::span<const ValueId> in) {
                       return std::vector<ValueId>{embedding(g, in[0], in[1])};
                     }});
  }
  // A padding row gets no gradient though it was looked up, so differences would not find zeros.
  struct Padded {
    int64_t vocabulary, hidden;
    Shape ids;
    int64_t padding;
  };
  const Padded padded[] = {{9, 6, {2, 4}, 0},         {1, 8, {5}, 0},  {3, 24, {1000}, 2},
                           {50, 1, {33}, 7},          {7, 5, {0}, 3},  {2, 40, {2049}, 0},
                           {2500, 8, {4, 600}, 1200}, {30, 129, {}, 4}};
  for (const Padded& s : padded) {
    Shape dy = s.ids;
    dy.push_back(s.hidden);
    cases.push_back(
        {.op = &embedding_grad_op,
         .name = fmt::format("V{} H{} ids {} padding {}", s.vocabulary, s.hidden, s.ids, s.padding),
         .inputs = {{.shape = dy}, {.shape = s.ids, .fill = Fill::ids, .limit = s.vocabulary}},
         .build = [attrs = EmbeddingAttrs{s.vocabulary, s.padding}](Graph& g,
                                                                    std::span<const ValueId> in) {
           return std::vector<ValueId>{g.emit(embedding_grad_op, {in[0], in[1]}, attrs)};
         }});
  }
  const Padded rows[] = {{9, 6, {2, 4}, 0},        {1, 8, {5}, kNoPadding},
                         {3, 24, {1000}, 2},       {50, 1, {33}, 7},
                         {7, 5, {0}, 3},           {7, 0, {3}, kNoPadding},
                         {2, 40, {2049}, 0},       {2500, 8, {4, 600}, 1200},
                         {30, 129, {}, 4},         {30, 129, {}, kNoPadding},
                         {4000, 264, {3, 1100}, 0}};
  for (const Padded& s : rows) {
    Shape dy = s.ids;
    dy.push_back(s.hidden);
    cases.push_back(
        {.op = &embedding_grad_rows_op,
         .name = fmt::format("V{} H{} ids {} padding {}", s.vocabulary, s.hidden, s.ids, s.padding),
         .inputs = {{.shape = dy, .differentiable = false},
                    {.shape = s.ids, .fill = Fill::ids, .limit = s.vocabulary}},
         .build = [attrs = EmbeddingAttrs{s.vocabulary, s.padding}](Graph& g,
                                                                    std::span<const ValueId> in) {
           const NodeId n = g.emit_node(embedding_grad_rows_op, in, attrs);
           return std::vector<ValueId>{g.output(n, 0), g.output(n, 1)};
         }});
  }
}

}  // namespace lithe::registry
