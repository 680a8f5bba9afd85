#include "tensor/ops/normalized_rows.h"

#include "tensor/ops/norm_shapes.h"

namespace lithe {
namespace {

void infer_normalize(InferContext& c) {
  c.expect_inputs(3);
  expect_norm_rows(c, 0);
  expect_norm_statistics(c, 1, "mean");
  expect_norm_statistics(c, 2, "rstd");
  c.output(c.dtype(0), c.shape(0));
}

void infer_spread(InferContext& c) {
  c.expect_inputs(2);
  expect_norm_rows(c, 0);
  expect_norm_statistics(c, 1, "rstd");
  c.output(c.dtype(0), c.shape(0));
}

double flops_normalize(const Graph& g, NodeId n) {
  return 2 * static_cast<double>(g.shape(g.in(n, 0)).numel());
}

}  // namespace

const OpDef normalize_rows_op = {.name = "normalize_rows",
                                 .infer = infer_normalize,
                                 .flops = flops_normalize,
                                 .aliases = {{{Alias::in_place, 0, 0}}},
                                 .cpu = normalize_rows_cpu};
const OpDef spread_rows_op = {.name = "spread_rows",
                              .infer = infer_spread,
                              .aliases = {{{Alias::in_place, 0, 0}}},
                              .cpu = spread_rows_cpu};

ValueId normalize_rows(Graph& graph, ValueId x, ValueId mean, ValueId rstd) {
  return graph.emit(normalize_rows_op, {x, mean, rstd});
}

ValueId spread_rows(Graph& graph, ValueId y, ValueId rstd) {
  return graph.emit(spread_rows_op, {y, rstd});
}

}  // namespace lithe
