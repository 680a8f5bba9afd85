#include "tensor/ops/offload.h"

#include <array>

namespace lithe {
namespace {

void infer_copy(InferContext& c) {
  c.expect_inputs(1);
  c.output(c.dtype(0), c.shape(0));
}

void infer_wait(InferContext& c) {
  c.expect_inputs(1, 2);
  if (c.has(1)) {
    c.expect_shape(1, c.shape(0), "source");
  }
  c.output(c.dtype(0), c.shape(0));
}

double no_flops(const Graph&, NodeId) { return 0; }

}  // namespace

const OpDef offload_store_op = {.name = "offload_store",
                                .infer = infer_copy,
                                .flops = no_flops,
                                .cpu = offload_copy_cpu,
                                .outputs_on_host = true};
const OpDef offload_load_op = {
    .name = "offload_load", .infer = infer_copy, .flops = no_flops, .cpu = offload_copy_cpu};
const OpDef offload_wait_op = {.name = "offload_wait",
                               .infer = infer_wait,
                               .flops = no_flops,
                               .aliases = {{{Alias::view, 0, 0}}},
                               .cpu = offload_wait_cpu};

ValueId offload_store(Graph& graph, ValueId x) { return graph.emit(offload_store_op, {x}); }
ValueId offload_load(Graph& graph, ValueId x) { return graph.emit(offload_load_op, {x}); }
ValueId offload_wait(Graph& graph, ValueId x, ValueId source) {
  return graph.emit(offload_wait_op, {x, source});
}

}  // namespace lithe
