// Saved values that wait for backward in host memory: where the copies stand in the step. One is
// under way at a time, beside the kernels (tensor/ops/offload.h): a copy to the host until the next
// value that goes there has been made, a copy back while backward works with the one before it.
#pragma once

#include <span>
#include <vector>

#include "tensor/graph/graph.h"

namespace lithe {

// Copies each of `values`, in the order in which forward nodes make them, behind its producer.
// Returns them as they lie on the host.
std::vector<ValueId> emit_host_stores(Graph& graph, std::span<const ValueId> values);

// Copies back, in the order in which backward needs them.
class HostLoads {
 public:
  // Emits the first copy in front of backward.
  HostLoads(Graph& graph, std::vector<ValueId> on_host);
  // The next of them on the device, at the cursor; the one after it is on its way from here on.
  ValueId next();

 private:
  void start();

  Graph& graph_;
  std::vector<ValueId> on_host_;
  size_t started_ = 0;
  ValueId under_way_ = kNoValue;
};

}  // namespace lithe
