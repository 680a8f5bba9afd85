#include "registry/registry.h"
#include "tensor/ops/loss.h"

namespace lithe::registry {
namespace {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

Shape rows_of(const Shape& logits) {
  return Shape(std::span(logits.begin(), static_cast<size_t>(logits.rank() - 1)));
}

void add_classification(std::vector<Case>& cases) {
  struct Size {
    Shape logits;
    Fill labels = Fill::labels;
    int64_t ignore_index = -100;
    double smoothing = 0;
  };
  const Size sizes[] = {
      {{3}, Fill::ids},        // one row
      {{1, 1}, Fill::ids},     // one class
      {{7, 5}},                //
      {{7, 5}, Fill::ids},     // no row ignored
      {{7, 5}, Fill::ids, 2},  // a class ignored
      {{2, 5, 9}, Fill::labels, -100, 0.1},
      {{9, 4}, Fill::labels, -100, 1.0},
      {{0, 4}},                // no rows
      {{4, 1}, Fill::ids, 0},  // all rows ignored
      {{2, 2, 3, 33}},         //
      {{130, 257}, Fill::labels, -100, 0.05},
      {{3, 5001}},
  };
  for (const Size& s : sizes) {
    const std::vector<Input> inputs = {
        {.shape = s.logits, .fill = Fill::distinct},
        {.shape = rows_of(s.logits), .fill = s.labels, .limit = s.logits.back()}};
    const std::string name =
        fmt::format("{}{} ignore {} smoothing {}", s.logits,
                    s.labels == Fill::labels ? " some" : "", s.ignore_index, s.smoothing);
    cases.push_back({.op = &cross_entropy_op,
                     .name = name,
                     .inputs = inputs,
                     .build = [s](Graph& g, Values in) -> Outputs {
                       return {cross_entropy(g, in[0], in[1], {s.ignore_index, s.smoothing})};
                     }});
    cases.push_back({.op = &count_correct_op,
                     .name = name,
                     .inputs = inputs,
                     .build = [s](Graph& g, Values in) -> Outputs {
                       return {count_correct(g, in[0], in[1], s.ignore_index)};
                     }});
  }
}

}  // namespace

void add_loss_cases(std::vector<Case>& cases) {
  add_classification(cases);
  const Shape shapes[] = {
      {}, {1}, {7}, {3, 5}, {2, 1, 33}, {0, 3}, {2, 2, 2, 2, 2, 2}, {3, 16385}, {129, 127}};
  for (const Shape& shape : shapes) {
    cases.push_back(
        {.op = &mse_op,
         .name = fmt::format("{}", shape),
         .inputs = {{.shape = shape}, {.shape = shape, .differentiable = false}},
         .build = [](Graph& g, Values in) -> Outputs { return {mse(g, in[0], in[1])}; }});
  }
}

}  // namespace lithe::registry
