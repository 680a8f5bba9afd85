#include "registry/registry.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/normalized_rows.h"

namespace lithe::registry {
namespace {

struct Size {
  Shape shape;
  double eps = 1e-5;
  int groups = 1;
};

ValueId emit(Graph& g, const OpDef& op, std::span<const ValueId> in, const Size& s) {
  if (&op == &layer_norm_op) {
    return layer_norm(g, in[0], in[1], in[2], s.eps);
  }
  return &op == &rms_norm_op ? rms_norm(g, in[0], in[1], s.eps)
                             : group_norm(g, in[0], in[1], in[2], s.groups, s.eps);
}

void add(std::vector<Case>& cases, const OpDef& op, std::span<const Size> sizes) {
  for (const Size& s : sizes) {
    const Shape parameter = {s.shape.back()};
    // Over one element the mean is the element: x's gradient is zero, and rounding noise in
    // practice.
    const bool constant = &op == &layer_norm_op && s.shape.back() == 1;
    std::vector<Input> inputs = {{.shape = s.shape, .differentiable = !constant},
                                 {.shape = parameter}};
    if (&op != &rms_norm_op) {
      inputs.push_back({.shape = parameter});
    }
    cases.push_back({.op = &op,
                     .name = fmt::format("{} groups {} eps {}", s.shape, s.groups, s.eps),
                     .inputs = inputs,
                     .build = [s, which = &op](Graph& g, std::span<const ValueId> in) {
                       return std::vector<ValueId>{emit(g, *which, in, s)};
                     }});
  }
}

// Layer norm with some inputs frozen: each set of wanted gradients has its own backward op.
void add_frozen(std::vector<Case>& cases) {
  struct Wanted {
    const char* name;
    bool x, gamma, beta;
  };
  for (const Wanted& w :
       {Wanted{"x", true, false, false}, Wanted{"gamma beta", false, true, true},
        Wanted{"gamma", false, true, false}, Wanted{"beta", false, false, true},
        Wanted{"x gamma", true, true, false}, Wanted{"x beta", true, false, true}}) {
    for (const int64_t size : {7, 64, 384}) {
      const Shape parameter = {size};
      cases.push_back({.op = &layer_norm_op,
                       .name = fmt::format("67x{} wanted {}", size, w.name),
                       .inputs = {{.shape = {67, size}, .differentiable = w.x},
                                  {.shape = parameter, .differentiable = w.gamma},
                                  {.shape = parameter, .differentiable = w.beta}},
                       .build = [](Graph& g, std::span<const ValueId> in) {
                         return std::vector<ValueId>{
                             emit(g, layer_norm_op, in, {.shape = {}, .eps = 1e-5})};
                       }});
    }
  }
}

// What stands between forward and backward where a frozen norm's output is kept.
void add_normalized(std::vector<Case>& cases) {
  for (const Shape& shape : {Shape{1}, Shape{7}, Shape{3, 5}, Shape{0, 4}, Shape{2, 3, 64},
                             Shape{4, 768}, Shape{129, 80}, Shape{2, 2, 2, 257}, Shape{3, 4096}}) {
    const Input row{.shape = {shape.product(0, shape.rank() - 1)},
                    .fill = Fill::positive,
                    .differentiable = false,
                    .widened = true};
    for (const OpDef* op : {&normalize_rows_op, &spread_rows_op}) {
      cases.push_back({.op = op,
                       .name = fmt::format("{}", shape),
                       .inputs = {{.shape = shape, .differentiable = false}, row, row},
                       .build = [op](Graph& g, std::span<const ValueId> in) {
                         return std::vector<ValueId>{op == &spread_rows_op
                                                         ? spread_rows(g, in[0], in[2])
                                                         : normalize_rows(g, in[0], in[1], in[2])};
                       }});
    }
  }
}

}  // namespace

void add_norm_cases(std::vector<Case>& cases) {
  const Size rows[] = {
      {{7}},
      {{1, 7}},
      {{5, 3}, 1e-12},
      {{2, 3, 17}},
      {{0, 4}},
      {{4, 0}},
      {{3, 64}, 0.1},
      {{200, 5}},
      {{131, 129}},
      {{2, 2, 2, 2, 2, 33}, 1e-6},
      // One element a row: only epsilon is left, and a small one would leave only cancellation.
      {{3, 1}, 0.25},
      {{1, 1}, 0.5},
  };
  add(cases, layer_norm_op, rows);
  add_frozen(cases);
  add_normalized(cases);
  add(cases, rms_norm_op, rows);
  const Size images[] = {
      {{1, 6}, 1e-5, 2},
      {{2, 3, 5, 6}, 1e-5, 3},
      {{2, 3, 5, 6}, 1e-6, 1},
      {{2, 3, 5, 6}, 1e-5, 6},
      {{3, 130, 8}, 1e-5, 4},
      {{1, 1, 1, 1}, 0.25, 1},
      {{0, 4, 8}, 1e-5, 2},
      {{2, 0, 8}, 1e-5, 2},
      {{2, 3, 3, 3, 2, 12}, 1e-5, 4},
      {{1, 17, 13, 30}, 0.01, 10},
      {{5, 70, 4}, 1e-5, 2},
      {{2, 40, 48}, 1e-5, 2},
      // Groups larger than a GPU's block holds.
      {{2, 1030, 64}, 1e-5, 2},
      {{1, 2100, 30}, 1e-5, 1},
  };
  add(cases, group_norm_op, images);
}

}  // namespace lithe::registry
