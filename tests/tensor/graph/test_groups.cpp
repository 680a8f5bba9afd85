// Nodes that run at the same time: what forms a group, and how long its memory lives.
#include <doctest/doctest.h>

#include <algorithm>

#include "sample_ops.h"
#include "tensor/graph/executor.h"

using namespace lithe;        // NOLINT
using namespace lithe::test;  // NOLINT

namespace {

const OpDef grouped_op = [] {
  OpDef op = scratch_op;  // y = x + 1 by way of a workspace
  op.name = "grouped";
  op.grouped = true;
  return op;
}();

int g_groups = 0;
size_t g_largest = 0;

// All inputs are read before any output is written, as launches that run together may do.
void run_group(std::span<const KernelArgs> calls) {
  ++g_groups;
  g_largest = std::max(g_largest, calls.size());
  std::vector<std::vector<float>> results;
  for (const KernelArgs& args : calls) {
    std::vector<float> y(static_cast<size_t>(args.in[0].numel()));
    for (size_t i = 0; i < y.size(); ++i) {
      y[i] = args.in[0].as<float>()[i] + 1;
    }
    std::fill_n(static_cast<std::byte*>(args.workspace), args.workspace_bytes, std::byte{0x55});
    results.push_back(std::move(y));
  }
  for (size_t c = 0; c < calls.size(); ++c) {
    std::copy(results[c].begin(), results[c].end(), calls[c].out[0].as<float>());
  }
}

DeviceKernel lookup(const OpDef& op) { return {op.cpu, op.grouped ? run_group : nullptr}; }

}  // namespace

TEST_CASE("neighbours of a grouped op that read nothing of one another form a group") {
  const SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {8});
  const ValueId a = g.emit(grouped_op, {x});
  const ValueId b = g.emit(grouped_op, {x});
  const ValueId c = g.emit(grouped_op, {a});  // reads a: a group of its own starts here
  const ValueId d = g.emit(grouped_op, {b});
  const ValueId e = g.emit(copy_op, {d});
  const ValueId f = g.emit(grouped_op, {e});
  g.mark_output(g.emit(sum_op, {c, f}), "out");
  const Plan plan = make_plan(g, DeviceKind::cpu);
  CHECK(plan.group_end == std::vector<int32_t>{2, 2, 4, 4, 5, 6, 7});
}

TEST_CASE("a group's memory lives as long as the group, and the group runs as one call") {
  const SlotTable slots;
  Graph g(slots);
  // Each gradient-like value dies in its own grouped node, whose output could take its place.
  std::vector<ValueId> made;
  for (int i = 0; i < 4; ++i) {
    made.push_back(g.emit(copy_op, {g.input(fmt::format("x{}", i), DType::f32, {64})}));
  }
  ValueId sum = kNoValue;
  std::vector<ValueId> out;
  for (ValueId v : made) {
    out.push_back(g.emit(grouped_op, {v}));
  }
  for (ValueId v : out) {
    sum = sum == kNoValue ? v : g.emit(sum_op, {sum, v});
  }
  g.mark_output(sum, "sum");
  const Plan plan = make_plan(g, DeviceKind::cpu);
  int scratches = 0;
  for (const Buffer& buffer : plan.buffers) {
    if (buffer.scratch_of != kNoNode) {
      CHECK(buffer.first == 4);
      CHECK(buffer.last == 7);
      ++scratches;
    }
  }
  CHECK(scratches == 4);

  Executor executor(cpu_memory(), lookup, slots);
  const Program program = executor.bind(g, plan);
  for (int i = 0; i < 4; ++i) {
    Tensor x(DType::f32, {64});
    std::fill_n(x.as<float>().data(), 64, static_cast<float>(i));
    for (ValueId v : g.leaves()) {
      if (g.name(v) == fmt::format("x{}", i)) {
        executor.write(program, v, x);
      }
    }
  }
  g_groups = 0;
  g_largest = 0;
  executor.run_poisoned(program);
  CHECK(g_groups == 1);
  CHECK(g_largest == 4);
  const Tensor result = executor.read(program, sum);
  for (float v : result.as<float>()) {
    CHECK(v == 10.0f);  // 0 + 1 + 2 + 3, and one for each
  }
}
