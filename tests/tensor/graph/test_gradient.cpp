#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "sample_ops.h"
#include "tensor/graph/executor.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/elementwise.h"

using namespace lithe;
using namespace lithe::test;

namespace {

int count_phase(const Graph& g, Phase phase) {
  const std::vector<NodeId> order = g.order();
  return static_cast<int>(std::count_if(order.begin(), order.end(),
                                        [&](NodeId n) { return g.node(n).phase == phase; }));
}

struct Built {
  SlotTable slots;
  Graph g{slots};
  std::vector<ValueId> leaves;

  explicit Built(int count) {
    for (int i = 0; i < count; ++i) {
      leaves.push_back(g.input(fmt::format("x{}", i), DType::f64, {2}));
    }
  }
  // Gradient values of each wanted leaf, for leaves filled with 2, 3, 4, ...
  std::vector<double> run(ValueId loss, std::vector<ValueId> wanted) {
    const auto found = gradients(g, loss, 1.0, wanted);
    for (const ParameterGradient& p : found) {
      g.mark_output(p.gradient, "gradient");
    }
    verify(g, "gradients");
    const Plan plan = make_plan(g, DeviceKind::cpu);
    Executor executor(
        cpu_memory(), [](const OpDef& op) -> DeviceKernel { return {op.cpu}; }, slots);
    const Program program = executor.bind(g, plan);
    for (size_t i = 0; i < leaves.size(); ++i) {
      const double value = 2.0 + static_cast<double>(i);
      executor.write(program, leaves[i],
                     Tensor::from<double>({2}, std::vector<double>{value, -value}));
    }
    executor.run_poisoned(program);
    std::vector<double> out;
    for (ValueId v : wanted) {
      const auto at =
          std::find_if(found.begin(), found.end(), [&](const auto& p) { return p.parameter == v; });
      out.push_back(at == found.end() ? 0 : executor.read(program, at->gradient).as<double>()[0]);
    }
    return out;
  }
};

void grad_wrong_shape(GradContext& c) { c.set(0, c.graph.emit(flat_op, {c.dout()})); }
const OpDef wrong_op = {
    .name = "wrong", .infer = copy_op.infer, .grad = grad_wrong_shape, .cpu = copy_op.cpu};

}  // namespace

TEST_CASE("the contributions of several readers are summed") {
  Built b(2);
  Graph& g = b.g;
  const ValueId x = b.leaves[0];
  const ValueId y = b.leaves[1];
  // x*x*y + x + y*x: 2xy + 1 + y, x^2 + x at x = 2, y = 3.
  const ValueId loss = add(g, add(g, mul(g, mul(g, x, x), y), x), mul(g, y, x));
  CHECK(b.run(loss, {x, y}) == std::vector<double>{16, 6});
}

TEST_CASE("frozen leaves get nothing, and only what leads to wanted leaves is emitted") {
  Built b(3);
  Graph& g = b.g;
  const ValueId below = mul(g, b.leaves[0], b.leaves[1]);  // frozen: no backward node here
  const ValueId loss = mul(g, below, b.leaves[2]);
  const int forward = static_cast<int>(g.order().size());
  const std::vector<ValueId> wanted = {b.leaves[2]};
  const auto found = gradients(g, loss, 1.0, wanted);
  REQUIRE(found.size() == 1);
  CHECK(found[0].parameter == b.leaves[2]);
  CHECK(count_phase(g, Phase::forward) == forward);
  CHECK(count_phase(g, Phase::backward) == 2);  // the seed and one product
  g.mark_output(loss, "loss");
  g.mark_output(found[0].gradient, "gradient");
  CHECK(g.eliminate_dead() == 0);
  CHECK(g.value(found[0].gradient).is_gradient);
}

TEST_CASE("a leaf that the loss does not depend on has no gradient") {
  Built b(2);
  Graph& g = b.g;
  mul(g, b.leaves[1], b.leaves[1]);
  const ValueId loss = scale(g, b.leaves[0], 3);
  const std::vector<ValueId> wanted = b.leaves;
  const auto found = gradients(g, loss, 1.0, wanted);
  REQUIRE(found.size() == 1);
  CHECK(found[0].parameter == b.leaves[0]);
}

TEST_CASE("nothing wanted, nothing emitted") {
  Built b(2);
  const ValueId loss = mul(b.g, b.leaves[0], b.leaves[1]);
  const ValueId seed = b.g.input("seed", DType::f64, {2});
  CHECK(build_gradients(b.g, loss, seed, {}, add_op).empty());
  CHECK(count_phase(b.g, Phase::backward) == 0);
}

TEST_CASE("gradients come in the order in which they become complete: the last layer's first") {
  Built b(3);
  Graph& g = b.g;
  ValueId loss = b.leaves[0];
  loss = mul(g, loss, b.leaves[1]);
  loss = mul(g, loss, b.leaves[2]);
  const auto found = gradients(g, loss, 1.0, b.leaves);
  REQUIRE(found.size() == 3);
  CHECK(found[0].parameter == b.leaves[2]);
  // A leaf read early and late is complete only after its early reader.
  Built c(2);
  ValueId twice_read = mul(c.g, c.leaves[0], c.leaves[1]);
  twice_read = mul(c.g, twice_read, c.leaves[0]);
  const auto order = gradients(c.g, twice_read, 1.0, c.leaves);
  REQUIRE(order.size() == 2);
  CHECK(c.run(mul(c.g, c.leaves[0], c.leaves[0]), {c.leaves[0]}) == std::vector<double>{4});
}

TEST_CASE("an op without a rule stops a gradient that must pass, and no other") {
  Built b(2);
  Graph& g = b.g;
  const ValueId opaque = g.emit(opaque_op, {b.leaves[0]});
  const ValueId loss = mul(g, opaque, b.leaves[1]);
  const ValueId seed = g.input("seed", DType::f64, {2});
  const std::vector<ValueId> beside = {b.leaves[1]};
  CHECK(build_gradients(g, loss, seed, beside, add_op).size() == 1);
  const std::vector<ValueId> through = {b.leaves[0]};
  CHECK_THROWS_WITH_AS(build_gradients(g, loss, seed, through, add_op), doctest::Contains("opaque"),
                       GraphError);
}

TEST_CASE("a rule whose gradient has another shape than the input is refused with both shapes") {
  SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {2, 3});
  const ValueId y = g.emit(wrong_op, {x});
  const ValueId seed = g.input("seed", DType::f32, {2, 3});
  const std::vector<ValueId> wanted = {x};
  CHECK_THROWS_WITH_AS(build_gradients(g, y, seed, wanted, add_op), doctest::Contains("[6]"),
                       GraphError);
}

TEST_CASE("backward nodes carry the scope of their forward node, and the graph's own is restored") {
  Built b(2);
  Graph& g = b.g;
  const ScopeId scope = g.add_scope("block.3", 3);
  g.set_scope(scope);
  const ValueId loss = mul(g, b.leaves[0], b.leaves[1]);
  g.set_scope(0);
  const auto found = gradients(g, loss, 1.0, b.leaves);
  CHECK(g.scope_of(g.value(found[0].gradient).producer).path == "block.3");
  CHECK(g.current_scope() == 0);
  CHECK(g.phase() == Phase::forward);
}

TEST_CASE("gradients of a definition are those of the op") {
  for (const bool expanded : {false, true}) {
    SlotTable slots;
    Graph g(slots);
    const ValueId x = g.input("x", DType::f32, {1});
    ValueId y = g.emit(twice_op, {g.emit(twice_op, {x})});
    g.mark_output(y, "y");
    if (expanded) {
      CHECK(expand(g, [](const Graph&, NodeId) { return true; }) == 2);
      y = g.output(g.last(), 0);
    }
    const ValueId seed = g.input("seed", DType::f32, {1});
    const std::vector<ValueId> wanted = {x};
    const auto found = build_gradients(g, y, seed, wanted, sum_op);
    REQUIRE(found.size() == 1);
    g.mark_output(found[0].gradient, "dx");
    verify(g, "test");
    const Plan plan = make_plan(g, DeviceKind::cpu);
    Executor executor(
        cpu_memory(), [](const OpDef& op) -> DeviceKernel { return {op.cpu}; }, slots);
    const Program program = executor.bind(g, plan);
    executor.write(program, x, Tensor::from<float>({1}, std::vector<float>{1}));
    executor.write(program, seed, Tensor::from<float>({1}, std::vector<float>{5}));
    executor.run_poisoned(program);
    CHECK(executor.read(program, found[0].gradient).as<float>()[0] == 20);
  }
}
