// Weight expressions: what they multiply and their gradients against the dense matrix that they
// say they are, in fp64.
#include <doctest/doctest.h>

#include <cmath>

#include "nn/twin.h"
#include "nn/weight.h"
#include "tensor/core/philox.h"
#include "tensor/ops/loss.h"
#include "tensor/ops/op_table.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

constexpr int64_t kIn = 5;
constexpr int64_t kOut = 7;
constexpr int64_t kRank = 3;
constexpr double kScale = 0.75;

Tensor random_tensor(const Shape& shape, uint64_t seed) {
  Tensor out(DType::f64, shape);
  auto values = out.as<double>();
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 2 * uniform01(philox(3, seed, i).word[0]) - 1;
  }
  return out;
}

// One layer of W + two deltas on slots of its own, with a loss over its output.
struct Layer {
  explicit Layer(Activation fused = Activation::none) {
    const auto slot = [&](std::string_view name, const Shape& shape) {
      const SlotId s = slots.add(
          {.name = std::string(name), .dtype = DType::f64, .shape = shape, .trainable = true});
      values.push_back(random_tensor(shape, values.size()));
      return s;
    };
    const SlotId x = slot("x", {2, 4, kIn});
    const SlotId w = slot("w", {kOut, kIn});
    const SlotId bias = slot("bias", {kOut});
    slots[w].trainable = false;
    const auto delta = [&](const std::string& name, int64_t rank, double scale) {
      const SlotId a = slot(name + ".a", {rank, kIn});
      const SlotId b = slot(name + ".b", {kOut, rank});
      return std::make_unique<nn::LowRank>(a, b, Shape{kOut, kIn},
                                           nn::LowRank::Options{.scale = scale});
    };
    std::vector<std::unique_ptr<nn::Weight>> terms;
    terms.push_back(std::make_unique<nn::Dense>(w, Shape{kOut, kIn}));
    terms.push_back(delta("first", kRank, kScale));
    terms.push_back(delta("second", 1, -2));
    weight = std::make_unique<nn::Sum>(std::move(terms));
    graph = std::make_unique<Graph>(slots);
    Graph& g = *graph;
    y = weight->multiply(g, g.leaf(x), g.leaf(bias), fused).y;
    dense = linear(g, g.leaf(x), weight->dense(g), g.leaf(bias), fused).y;
    loss = mse(g, y, fill(g, DType::f64, g.shape(y), 0.3));
    g.mark_output(y, "y");
    g.mark_output(dense, "dense");
    g.mark_output(loss, "loss");
    std::vector<ValueId> wanted;
    for (SlotId s = 0; s < slots.size(); ++s) {
      if (slots[s].trainable) {
        wanted.push_back(g.leaf(s));
      }
    }
    grads = gradients(g, loss, 1.0, wanted);
    for (const ParameterGradient& p : grads) {
      g.mark_output(p.gradient, "grad." + g.name(p.parameter));
    }
    g.eliminate_dead();
    plan = make_plan(g, DeviceKind::cpu);
    executor = std::make_unique<Executor>(cpu_memory(), kernel_lookup(DeviceKind::cpu), slots);
    program = executor->bind(g, plan);
    run();
  }
  double run() {
    for (SlotId s = 0; s < slots.size(); ++s) {
      executor->write_slot(s, values[static_cast<size_t>(s)]);
    }
    executor->run(program);
    return executor->read(program, loss).as<double>()[0];
  }

  SlotTable slots;
  std::vector<Tensor> values;
  std::unique_ptr<nn::Sum> weight;
  std::unique_ptr<Graph> graph;
  ValueId y = kNoValue, dense = kNoValue, loss = kNoValue;
  std::vector<ParameterGradient> grads;
  Plan plan;
  std::unique_ptr<Executor> executor;
  Program program;
};

}  // namespace

TEST_CASE("a sum of weights multiplies as its dense matrix does") {
  for (const Activation fused : {Activation::none, Activation::gelu}) {
    const Layer layer(fused);
    CHECK(relative_error(layer.executor->read(layer.program, layer.y),
                         layer.executor->read(layer.program, layer.dense)) < 1e-14);
  }
  const Layer layer;
  CHECK(layer.weight->slots().size() == 5);
  CHECK_FALSE(layer.weight->draws());
}

TEST_CASE("gradients of a sum of weights are central differences") {
  Layer layer(Activation::tanh);
  CHECK(layer.grads.size() == 6);  // all but the frozen base
  for (const ParameterGradient& p : layer.grads) {
    const SlotId slot = layer.graph->value(p.parameter).slot;
    INFO(layer.slots[slot].name);
    layer.run();
    const Tensor gradient = layer.executor->read(layer.program, p.gradient);
    auto values = layer.values[static_cast<size_t>(slot)].as<double>();
    for (size_t i = 0; i < values.size(); ++i) {
      constexpr double kStep = 1e-5;
      const double at = values[i];
      values[i] = at + kStep;
      const double above = layer.run();
      values[i] = at - kStep;
      const double below = layer.run();
      values[i] = at;
      CHECK(gradient.as<double>()[i] ==
            doctest::Approx((above - below) / (2 * kStep)).epsilon(1e-7));
    }
  }
}

TEST_CASE("the dense value of a sum, and the base back without the rest") {
  Layer layer;
  const auto get = [&](SlotId s) { return layer.values[static_cast<size_t>(s)]; };
  const Tensor dense = nn::dense_value(*layer.weight, layer.slots, get);
  REQUIRE(dense.shape() == Shape{kOut, kIn});
  const auto at = [&](const char* name, int64_t row, int64_t columns, int64_t column) {
    const Tensor& t = layer.values[static_cast<size_t>(layer.slots.find(name))];
    return t.as<double>()[static_cast<size_t>(row * columns + column)];
  };
  for (int64_t o = 0; o < kOut; ++o) {
    for (int64_t i = 0; i < kIn; ++i) {
      double wanted = at("w", o, kIn, i) - 2 * at("second.b", o, 1, 0) * at("second.a", 0, kIn, i);
      for (int64_t r = 0; r < kRank; ++r) {
        wanted += kScale * at("first.b", o, kRank, r) * at("first.a", r, kIn, i);
      }
      CHECK(dense.as<double>()[static_cast<size_t>(o * kIn + i)] ==
            doctest::Approx(wanted).epsilon(1e-13));
    }
  }
  const std::unique_ptr<nn::Weight> base = layer.weight->take_base();
  CHECK(base->slots() == std::vector<SlotId>{layer.slots.find("w")});
}

TEST_CASE("terms of different shapes are no sum") {
  SlotTable slots;
  const SlotId w = slots.add({.name = "w", .shape = {2, 3}});
  std::vector<std::unique_ptr<nn::Weight>> terms;
  CHECK_THROWS_AS(nn::Sum(std::move(terms)), ShapeError);
  terms.clear();
  terms.push_back(std::make_unique<nn::Dense>(w, Shape{2, 3}));
  terms.push_back(std::make_unique<nn::Dense>(w, Shape{3, 2}));
  CHECK_THROWS_WITH_AS(nn::Sum(std::move(terms)), doctest::Contains("[2, 3] and [3, 2]"),
                       ShapeError);
}
