#include "registry/registry.h"
#include "tensor/ops/reduce.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

void add_reductions(std::vector<Case>& cases) {
  struct Kind {
    const OpDef* op;
    Reduction kind;
  };
  const Kind kinds[] = {{&reduce_sum_op, Reduction::sum},
                        {&reduce_mean_op, Reduction::mean},
                        {&reduce_max_op, Reduction::max}};
  struct Size {
    Shape shape;
    uint8_t axes;  // bit i: dimension i
    bool keep_dims = false;
  };
  const Size sizes[] = {
      {{}, 0},
      {{1}, 1},
      {{17}, 1, true},
      {{3, 5}, 0b10},            // rows
      {{3, 5}, 0b01, true},      // columns
      {{2, 3, 7}, 0b010},        // the middle: tokens of [B, T, H]
      {{2, 3, 7}, 0b101, true},  // all but the middle
      {{2, 3, 7}, 0b111},        //
      {{2, 1, 5}, 0b010},        // nothing to add
      {{3, 4}, 0},               // no axes at all
      {{2, 3, 2, 5, 2, 3}, 0b010101},
      {{2, 3, 2, 5, 2, 3}, 0b101010, true},
      {{0, 3}, 0b10},      // no results
      {{2, 40001}, 0b10},  // rows in chunks
      {{70001}, 1},        //
      {{301, 7}, 0b01},    // lines in chunks
      {{5, 2049}, 0b01},   // blocks of columns
      {{20, 9, 33}, 0b010},
  };
  for (const Kind& k : kinds) {
    for (const Size& s : sizes) {
      const Fill fill = k.kind == Reduction::max ? Fill::distinct : Fill::normal;
      const ReduceAttrs attrs{k.kind, s.axes, s.keep_dims};
      cases.push_back(
          {.op = k.op,
           .name = fmt::format("{} axes {:06b}{}", s.shape, s.axes, s.keep_dims ? " kept" : ""),
           .inputs = {{.shape = s.shape, .fill = fill}},
           .build = [op = k.op, attrs](Graph& g, Values in) -> Outputs {
             return {g.emit(*op, {in[0]}, attrs)};
           }});
    }
  }
  cases.push_back(
      {.op = &reduce_sum_op,
       .name = "[0, 3] axes 000001",
       .inputs = {{.shape = {0, 3}}},
       .build = [](Graph& g, Values in) -> Outputs { return {reduce_sum(g, in[0], {0})}; }});
}

void add_broadcasts(std::vector<Case>& cases) {
  struct Pair {
    Shape from, to;
  };
  const Pair pairs[] = {{{}, {5}},
                        {{1}, {7}},
                        {{3, 1}, {3, 5}},
                        {{5}, {2, 3, 5}},
                        {{1, 5}, {4, 5}},
                        {{3, 1, 5}, {2, 3, 4, 5}},
                        {{1, 3, 1}, {4, 3, 5}},
                        {{2, 1, 2, 1, 3, 1}, {2, 2, 2, 2, 3, 2}},
                        {{1, 3}, {0, 3}},
                        {{1, 999}, {23, 999}},
                        {{37, 1}, {37, 601}}};
  for (const Pair& p : pairs) {
    cases.push_back({.op = &broadcast_to_op,
                     .name = fmt::format("{} to {}", p.from, p.to),
                     .inputs = {{.shape = p.from}},
                     .build = [to = p.to](Graph& g, Values in) -> Outputs {
                       return {broadcast_to(g, in[0], to)};
                     }});
  }
}

}  // namespace

void add_reduce_cases(std::vector<Case>& cases) {
  add_reductions(cases);
  add_broadcasts(cases);
}

}  // namespace lithe::registry
