// Updates by the gradient of a table that comes as rows (update.h), beside one that is whole: some
// rows are looked up, some often, some never.
#include "registry/registry.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/moment_codes.h"
#include "tensor/ops/update.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

struct Size {
  int64_t vocabulary, hidden, ids;
  int64_t padding = kNoPadding;
};
constexpr Size kSizes[] = {{9, 6, 4},      {1, 8, 1, 0},   {40, 1, 7},
                           {7, 0, 3},      {700, 33, 90},  {513, 64, 100, 0},
                           {3000, 24, 40}, {260, 257, 19}, {2100, 16, 2000}};

// dy, ids; weight, two states, step, lr; the weight of a neighbour and its gradient.
std::vector<Input> inputs_of(const Size& s, bool coded) {
  const Shape table = {s.vocabulary, s.hidden};
  std::vector<Input> in = {{.shape = {s.ids, s.hidden}, .differentiable = false},
                           {.shape = {s.ids}, .fill = Fill::ids, .limit = s.vocabulary},
                           {.shape = table, .slot = true},
                           {.shape = table, .slot = true, .widened = true},
                           {.shape = table, .fill = Fill::positive, .slot = true, .widened = true},
                           {.shape = {1}, .fill = Fill::ids, .limit = 9, .slot = true},
                           {.shape = {1}, .fill = Fill::positive, .follows_dtype = false},
                           {.shape = {33}, .slot = true},
                           {.shape = {33}, .differentiable = false},
                           {.shape = {33}, .slot = true, .widened = true},
                           {.shape = {33}, .fill = Fill::positive, .slot = true, .widened = true},
                           {.shape = {1}, .fill = Fill::ids, .limit = 9, .slot = true}};
  if (coded) {
    in[3] = {.shape = moment_codes_shape(table.numel()), .fill = Fill::codes, .slot = true};
    in[4] = {.shape = moment_scales_shape(table.numel()),
             .fill = Fill::positive,
             .slot = true,
             .follows_dtype = false};
  }
  return in;
}

ParameterGradient rows_of(Graph& g, Values v, const Size& s) {
  const NodeId n =
      g.emit_node(embedding_grad_rows_op, v.first(2), EmbeddingAttrs{s.vocabulary, s.padding});
  return {kNoValue, g.output(n, 0), g.output(n, 1)};
}

Outputs measured(std::initializer_list<UpdateOut> updates) {
  Outputs out;
  for (const UpdateOut& u : updates) {
    out.insert(out.end(), {u.squares, u.change});
  }
  return out;
}

}  // namespace

void add_update_rows_cases(std::vector<Case>& cases) {
  const UpdateMeasures measures{.squares = true, .change = ChangeMetric::guarded, .floor = 0.25};
  for (const Size& s : kSizes) {
    const std::string name = fmt::format("rows V{} H{} ids {}", s.vocabulary, s.hidden, s.ids);
    for (const bool coded : {false, true}) {
      for (const bool measure : {false, true}) {
        const UpdateMeasures asked = measure ? measures : UpdateMeasures{};
        cases.push_back(
            {.op = &adamw_op,
             .name = name + (coded ? ", 8 bits" : "") + (measure ? ", measured" : ""),
             .inputs = inputs_of(s, coded),
             .build = [=](Graph& g, Values v) -> Outputs {
               const ParameterGradient p = rows_of(g, v, s);
               const AdamWAttrs attrs{.weight_decay = 0.1, .measures = asked};
               const UpdateOut a = adamw(g,
                                         {.weight = v[2],
                                          .gradient = p.gradient,
                                          .m = v[3],
                                          .v = v[4],
                                          .step = v[5],
                                          .lr = v[6],
                                          .rows = p.rows},
                                         attrs);
               const UpdateOut b = adamw(g, {v[7], v[8], v[9], v[10], v[11], v[6]}, attrs);
               return measure ? measured({a, b}) : Outputs{};
             }});
      }
    }
    for (const bool momentum : {false, true}) {
      cases.push_back({.op = &sgd_op,
                       .name = name + (momentum ? ", momentum" : ""),
                       .inputs = inputs_of(s, false),
                       .build = [=](Graph& g, Values v) -> Outputs {
                         const ParameterGradient p = rows_of(g, v, s);
                         const SgdAttrs attrs{.momentum = momentum ? 0.9 : 0.0,
                                              .weight_decay = 0.1,
                                              .measures = measures};
                         const UpdateOut a = sgd(g,
                                                 {.weight = v[2],
                                                  .gradient = p.gradient,
                                                  .velocity = v[3],
                                                  .step = v[5],
                                                  .lr = v[6],
                                                  .rows = p.rows},
                                                 attrs);
                         return measured({a, sgd(g, {v[7], v[8], v[9], v[11], v[6]}, attrs)});
                       }});
    }
    const std::vector<Input> in = inputs_of(s, false);
    cases.push_back({.op = &sum_squares_op,
                     .name = name,
                     .inputs = {in[0], in[1], in[8]},
                     .build = [=](Graph& g, Values v) -> Outputs {
                       const ParameterGradient p = rows_of(g, v, s);
                       return {sum_squares(g, p.gradient, p.rows), sum_squares(g, v[2])};
                     }});
  }
}

}  // namespace lithe::registry
