// Random graphs of every way of sharing memory, and an interpreter that shares none.
#pragma once

#include <map>
#include <vector>

#include "sample_ops.h"
#include "tensor/core/tensor.h"

namespace lithe::test {

struct RandomGraph {
  explicit RandomGraph(uint64_t seed);

  SlotTable slots;
  Graph graph;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  std::map<ValueId, std::vector<float>> data;  // of inputs and slots' leaves
};

// Every value's elements, computed node by node into storage of its own.
std::map<ValueId, std::vector<float>> interpret(const RandomGraph& random);

Tensor to_tensor(const Graph& graph, ValueId v, const std::vector<float>& values);

}  // namespace lithe::test
