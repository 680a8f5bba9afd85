#include "tensor/ops/select_largest.h"

namespace lithe {
namespace {

void infer(InferContext& c) {
  c.expect_inputs(1);
  c.expect_floating(0);
  const int64_t n = c.shape(0).numel();
  const int64_t k = c.attr<SelectLargestAttrs>().k;
  if (n > INT32_MAX) {
    c.fail("x has {} elements; at most {} are possible, use a smaller batch", n, INT32_MAX);
  }
  if (k < 0 || k > n) {
    c.fail("k is {} for {} elements in {}; give 0 to {}", k, n, c.shape(0), n);
  }
  c.output(c.dtype(0), {k});
  c.output(DType::i32, {k});
}

double flops(const Graph& g, NodeId n) { return static_cast<double>(g.shape(g.in(n, 0)).numel()); }

// What is found so far (16 bytes), the digits' counts and two counts a range.
int64_t workspace(const Graph&, NodeId, DeviceKind device) {
  return device == DeviceKind::cpu ? 0 : 16 + 4 * ((1 << kSelectDigitBits) + 2 * kSelectRanges);
}

}  // namespace

const OpDef select_largest_op = {.name = "select_largest",
                                 .infer = infer,
                                 .flops = flops,
                                 .workspace = workspace,
                                 .cpu = select_largest_cpu};

SelectLargestOut select_largest(Graph& graph, ValueId x, const SelectLargestAttrs& attrs) {
  const NodeId n = graph.emit_node(select_largest_op, std::span(&x, 1), attrs);
  return {graph.output(n, 0), graph.output(n, 1)};
}

}  // namespace lithe
