// Values that wait in host memory. Copies run beside the kernels, on a stream of their own, in the
// order of their nodes; what they read or write is in use until offload_wait, which the following
// kernels stand behind. One copy is under way at a time: each copy node stands behind the wait of
// the one before it.
#pragma once

#include "tensor/graph/graph.h"

namespace lithe {

// A copy of x (any type and shape) in host memory; x may not be changed or die before its wait.
ValueId offload_store(Graph& graph, ValueId x);
// A copy of x, which is in host memory, on the device: not to be read before its wait.
ValueId offload_load(Graph& graph, ValueId x);
// x itself, once the copies so far are done. `source` is what the copy to the host was made of, to
// keep it until then; kNoValue for a copy to the device.
ValueId offload_wait(Graph& graph, ValueId x, ValueId source = kNoValue);

extern const OpDef offload_store_op, offload_load_op, offload_wait_op;

void offload_copy_cpu(const KernelArgs& args);
void offload_wait_cpu(const KernelArgs& args);

}  // namespace lithe
