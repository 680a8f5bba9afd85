#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "random_graph.h"
#include "tensor/graph/executor.h"

using namespace lithe;
using namespace lithe::test;

namespace {

DeviceKernel lookup(const OpDef& op) { return {op.cpu}; }

using Values = std::vector<std::vector<float>>;

// A plan and the memory it runs in.
class Run {
 public:
  Run(const RandomGraph& random, Plan plan)
      : random_(random),
        plan_(std::move(plan)),
        executor_(cpu_memory(), lookup, random.slots),
        program_(executor_.bind(random.graph, plan_)) {}

  Values results(bool poisoned) {
    for (const auto& [v, values] : random_.data) {
      const Tensor tensor = to_tensor(random_.graph, v, values);
      if (const SlotId s = random_.graph.value(v).slot; s != kNoSlot) {
        executor_.write_slot(s, tensor);
      } else {
        executor_.write(program_, v, tensor);
      }
    }
    poisoned ? executor_.run_poisoned(program_) : executor_.run(program_);
    Values out;
    for (ValueId v : random_.outputs) {
      const Tensor t = executor_.read(program_, v);
      out.emplace_back(t.as<float>().begin(), t.as<float>().end());
    }
    for (SlotId s = 0; s < random_.slots.size(); ++s) {
      const Tensor t = executor_.read_slot(s);
      out.emplace_back(t.as<float>().begin(), t.as<float>().end());
    }
    return out;
  }
  Executor& executor() { return executor_; }

 private:
  const RandomGraph& random_;
  Plan plan_;
  Executor executor_;
  Program program_;
};

Values expected(const RandomGraph& random) {
  const auto values = interpret(random);
  Values out;
  for (ValueId v : random.outputs) {
    out.push_back(values.at(v));
  }
  for (SlotId s = 0; s < random.slots.size(); ++s) {
    // The last value in the slot: what overwrote it, else what was there.
    ValueId last = const_cast<Graph&>(random.graph).leaf(s);
    for (NodeId n : random.graph.order()) {
      if (random.graph.node(n).op == &bump_op && random.graph.in(n, 0) == last) {
        last = random.graph.output(n, 0);
      }
    }
    out.push_back(values.at(last));
  }
  return out;
}

void set_offset(Plan& plan, size_t buffer, int64_t offset) {
  plan.buffers[buffer].offset = offset;
  for (Placement& place : plan.placement) {
    if (place.buffer == static_cast<int32_t>(buffer)) {
      place.offset = offset;
    }
  }
}

}  // namespace

TEST_CASE("planned runs, plain and poisoned, give the bits of an interpreter that shares nothing") {
  for (uint64_t seed = 0; seed < 150; ++seed) {
    CAPTURE(seed);
    const RandomGraph random(seed);
    const Values want = expected(random);
    Run run(random, make_plan(random.graph, DeviceKind::cpu));
    REQUIRE(run.results(false) == want);
    REQUIRE(run.results(true) == want);
  }
}

TEST_CASE("a step touches the arena up to its planned end and no further") {
  int graphs = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    CAPTURE(seed);
    const RandomGraph random(seed);
    const Plan plan = make_plan(random.graph, DeviceKind::cpu);
    if (plan.arena_bytes == 0) {
      continue;
    }
    Run run(random, plan);
    CHECK(run.executor().arena_bytes() == plan.arena_bytes);
    run.executor().reserve_arena(plan.arena_bytes);  // large enough: nothing changes
    run.executor().mark_arena(0xa5);
    run.results(false);
    const int64_t touched = run.executor().touched_arena_bytes(0xa5);
    CHECK(touched <= plan.arena_bytes);
    // The topmost buffer is rounded up to the alignment, so less than one unit stays untouched.
    CHECK(touched > plan.arena_bytes - kArenaAlignment);
    ++graphs;
  }
  CHECK(graphs > 40);
}

// The test of the test: every pair of buffers that live together is laid one upon the other, and
// nearly always the poisoned run must show it. (Not always: a buffer may be read by nobody.)
TEST_CASE("a poisoned run shows that two live buffers overlap") {
  int wrong_plans = 0;
  int caught = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const RandomGraph random(seed);
    const Values want = expected(random);
    const Plan plan = make_plan(random.graph, DeviceKind::cpu);
    Plan broken = plan;
    // An output and something else that is written while the output waits.
    const int end = static_cast<int>(plan.order.size());
    for (size_t a = 0; a < plan.buffers.size() && broken.arena_bytes > 0; ++a) {
      const Buffer& keeper = plan.buffers[a];
      const auto b = std::find_if(plan.buffers.begin(), plan.buffers.end(), [&](const Buffer& x) {
        return x.first > keeper.first && keeper.last == end && x.bytes > 0 && keeper.bytes > 0;
      });
      if (b != plan.buffers.end()) {
        set_offset(broken, static_cast<size_t>(b - plan.buffers.begin()), keeper.offset);
        broken.arena_bytes += 1 << 16;  // whatever was moved still lies inside
        ++wrong_plans;
        Run run(random, broken);
        const Values got = run.results(true);
        bool same = got.size() == want.size();
        for (size_t i = 0; same && i < got.size(); ++i) {
          same = std::memcmp(got[i].data(), want[i].data(), got[i].size() * 4) == 0;
        }
        caught += same ? 0 : 1;
        break;
      }
    }
  }
  CHECK(wrong_plans > 40);
  CHECK(caught == wrong_plans);
}

TEST_CASE("a poisoned run shows a buffer that is planned to die before its last reader") {
  SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {8});
  const ValueId a = g.emit(copy_op, {x});
  const ValueId b = g.emit(copy_op, {a});
  const ValueId y = g.emit(sum_op, {a, b});
  g.mark_output(y, "y");
  Plan plan = make_plan(g, DeviceKind::cpu);
  Executor executor(cpu_memory(), lookup, slots);
  const Tensor data = Tensor::from<float>({8}, std::vector<float>(8, 1.5f));
  const auto run = [&] {
    const Program program = executor.bind(g, plan);
    executor.write(program, x, data);
    executor.run_poisoned(program);
    return executor.read(program, y).as<float>()[3];
  };
  CHECK(run() == 3.0f);
  plan.buffers[static_cast<size_t>(plan.placement[static_cast<size_t>(a)].buffer)].last = 1;
  CHECK(std::isnan(run()));
}

TEST_CASE("writes check shape and dtype and name the value") {
  SlotTable slots;
  const SlotId w = slots.add({.name = "w", .shape = {4}});
  Graph g(slots);
  const ValueId x = g.input("pixels", DType::f32, {4});
  g.mark_output(g.emit(sum_op, {x, g.leaf(w)}), "y");
  const Plan plan = make_plan(g, DeviceKind::cpu);
  Executor executor(cpu_memory(), lookup, slots);
  const Program program = executor.bind(g, plan);
  CHECK_THROWS_AS(executor.write(program, x, Tensor(DType::f32, {5})), ShapeError);
  CHECK_THROWS_AS(executor.write(program, x, Tensor(DType::f64, {4})), ShapeError);
  CHECK_THROWS_WITH_AS(executor.write_slot(w, Tensor(DType::f32, {3})), doctest::Contains("[w]"),
                       ShapeError);
}

TEST_CASE("an op without a kernel on the device is named when the program is bound") {
  SlotTable slots;
  Graph g(slots);
  g.mark_output(g.emit(twice_op, {g.input("x", DType::f32, {4})}), "y");
  const Plan plan = make_plan(g, DeviceKind::cpu);
  Executor executor(
      cpu_memory(), [](const OpDef&) -> DeviceKernel { return {}; }, slots);
  CHECK_THROWS_WITH_AS(executor.bind(g, plan), doctest::Contains("'twice' has no kernel"),
                       DeviceError);
}

TEST_CASE("profiling runs every node once and times each") {
  const RandomGraph random(5);
  const Plan plan = make_plan(random.graph, DeviceKind::cpu);
  Executor executor(cpu_memory(), lookup, random.slots);
  const Program program = executor.bind(random.graph, plan);
  const std::vector<double> seconds = executor.run_profiled(program);
  CHECK(seconds.size() == plan.order.size());
  CHECK(std::all_of(seconds.begin(), seconds.end(), [](double s) { return s > 0; }));
}

TEST_CASE("a slot on the host is written and read, and takes no memory of the device") {
  SlotTable slots;
  const SlotId frozen = slots.add({.name = "frozen", .shape = {3}});
  slots.add_copies(DType::bf16);
  slots.keep_frozen_on_host();
  Executor executor(cpu_memory(), lookup, slots);
  CHECK(executor.slot_block_bytes() == kArenaAlignment);  // the copy
  Tensor value(DType::f32, {3});
  value.as<float>()[1] = 1.00001f;
  executor.write_slot(frozen, value);
  value.as<float>()[1] = 0;
  CHECK(executor.read_slot(frozen).as<float>()[1] == 1.00001f);
  CHECK_THROWS_AS(executor.write_slot(frozen, Tensor(DType::f32, {4})), ShapeError);
  CHECK_THROWS_AS((void)executor.slot(frozen), GraphError);
}

TEST_CASE("matrices of neighbouring layers lie one behind the other, as one larger one") {
  SlotTable slots;
  for (const char* layer : {"query", "key", "value"}) {
    slots.add({.name = fmt::format("{}.weight", layer), .shape = {16, 32}});
    slots.add({.name = fmt::format("{}.bias", layer), .shape = {16}});
  }
  slots.add_copies(DType::bf16);
  const Executor executor(cpu_memory(), lookup, slots);
  const auto address = [&](const std::string& name) {
    return static_cast<const std::byte*>(executor.slot(slots.find(name)).data);
  };
  for (const std::string prefix : {"", "copy."}) {
    const int64_t bytes = prefix.empty() ? 16 * 32 * 4 : 16 * 32 * 2;
    CHECK(address(prefix + "key.weight") - address(prefix + "query.weight") == bytes);
    CHECK(address(prefix + "value.weight") - address(prefix + "key.weight") == bytes);
  }
}
