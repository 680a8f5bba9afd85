// One op on the CPU through the plan and the executor, in poisoned memory.
#pragma once

#include <omp.h>

#include <algorithm>
#include <vector>

#include "tensor/core/philox.h"
#include "tensor/graph/executor.h"
#include "tensor/graph/gradient.h"

namespace lithe {

template <typename Build>
std::vector<Tensor> run_graph(const std::vector<Tensor>& inputs, Build&& build) {
  const SlotTable slots;
  Graph g(slots);
  std::vector<ValueId> in;
  for (size_t i = 0; i < inputs.size(); ++i) {
    in.push_back(g.input(fmt::format("in{}", i), inputs[i].dtype(), inputs[i].shape()));
  }
  const std::vector<ValueId> out = build(g, in);
  for (size_t i = 0; i < out.size(); ++i) {
    g.mark_output(out[i], fmt::format("out{}", i));
  }
  const Plan plan = make_plan(g, DeviceKind::cpu);
  Executor executor(
      cpu_memory(), [](const OpDef& op) -> DeviceKernel { return {op.cpu}; }, slots);
  const Program program = executor.bind(g, plan);
  executor.mark_arena(0xff);
  for (size_t i = 0; i < in.size(); ++i) {
    executor.write(program, in[i], inputs[i]);
  }
  executor.run_poisoned(program);
  std::vector<Tensor> results;
  for (const ValueId v : out) {
    results.push_back(executor.read(program, v));
  }
  return results;
}

inline std::vector<Tensor> run_op(const OpDef& op, const std::vector<Tensor>& inputs,
                                  const Attrs& attrs = {}) {
  return run_graph(inputs, [&](Graph& g, const std::vector<ValueId>& in) {
    const NodeId n = g.emit_node(op, in, attrs);
    const auto out = g.outputs(n);
    return std::vector<ValueId>(out.begin(), out.end());
  });
}

// fp32 in [-1, 1), a function of `key` and the element.
inline Tensor random_tensor(const Shape& shape, uint64_t key) {
  Tensor out(DType::f32, shape);
  auto values = out.as<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 2 * uniform01(philox(key, 1, i).word[0]) - 1;
  }
  return out;
}

inline int count_nodes(const Graph& g, const OpDef& op) {
  const std::vector<NodeId> order = g.order();
  return static_cast<int>(
      std::count_if(order.begin(), order.end(), [&](NodeId n) { return g.node(n).op == &op; }));
}

// Runs with another number of threads for its own lifetime.
class ThreadCount {
 public:
  explicit ThreadCount(int count) : saved_(omp_get_max_threads()) { omp_set_num_threads(count); }
  ~ThreadCount() { omp_set_num_threads(saved_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int saved_;
};

}  // namespace lithe
