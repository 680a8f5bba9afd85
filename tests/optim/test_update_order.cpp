#include <doctest/doctest.h>

#include <random>

#include "optim/optimizer.h"
#include "tensor/graph/executor.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/op_table.h"

namespace lithe {
namespace {

constexpr int kBlocks = 3;
constexpr int64_t kSize = 6;

std::unique_ptr<Optimizer> optimizer_of(const std::string& name) {
  return make_optimizer(recipe::Recipe::parse("{name: " + name + ", weight_decay: 0.1}", "test",
                                              optimizer_options()));
}

// A stack of linear layers, one a block, with a head of no block in front of the loss; fp32 weights
// with bf16 copies that the layers compute with.
struct Stack {
  explicit Stack(Optimizer& optimizer, int64_t size = kSize) {
    const auto parameter = [&](const std::string& name, const Shape& shape) {
      slots.add({.name = name,
                 .dtype = DType::f32,
                 .shape = shape,
                 .init = Init::normal(0.5),
                 .trainable = true});
    };
    for (int b = 0; b <= kBlocks; ++b) {
      const std::string layer = b == kBlocks ? "head" : fmt::format("layer.{}", b);
      parameter(layer + ".weight", {size, size});
      parameter(layer + ".bias", {size});
    }
    const int parameters = slots.size();
    slots.add_copies(DType::bf16);
    for (SlotId s = 0; s < parameters; ++s) {
      optimizer.add_state(slots, s);
    }
    g = std::make_unique<Graph>(slots);
    x = g->input("x", DType::bf16, {4, size});
    ValueId h = x;
    std::vector<ValueId> wanted;
    for (int b = 0; b <= kBlocks; ++b) {
      const std::string layer = b == kBlocks ? "head" : fmt::format("layer.{}", b);
      g->set_scope(g->add_scope(layer, b == kBlocks ? -1 : b));
      const ValueId weight = g->leaf(slots[slots.find(layer + ".weight")].copy);
      const ValueId bias = g->leaf(slots[slots.find(layer + ".bias")].copy);
      wanted.insert(wanted.end(), {weight, bias});
      h = linear(*g, h, weight, bias, Activation::tanh).y;
    }
    g->set_scope(0);
    dy = g->input("dy", DType::bf16, {4, size});
    gradients = build_gradients(*g, h, dy, wanted, add_op);
    lr = g->input("lr", DType::f32, {1});
  }

  // Two steps; every slot afterwards, then the sums of squares by gradient.
  std::vector<std::vector<double>> run(const std::vector<ValueId>& outputs) {
    for (const ValueId v : outputs) {
      g->mark_output(v, fmt::format("output.{}", v));
    }
    g->eliminate_dead();
    verify(*g, "attaching updates");
    const Plan plan = make_plan(*g, DeviceKind::cpu);
    Executor executor(cpu_memory(), cpu_kernel, slots);
    const Program program = executor.bind(*g, plan);
    for (SlotId s = 0; s < slots.size(); ++s) {
      executor.write_slot(s, initial_value(slots, s, 3));
    }
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (int step = 0; step < 2; ++step) {
      for (const ValueId in : {x, dy}) {
        Tensor values(DType::f32, {4, kSize});
        for (float& value : values.as<float>()) {
          value = normal(random);
        }
        executor.write(program, in, values.to(DType::bf16));
      }
      Tensor rate(DType::f32, {1});
      rate.as<float>()[0] = 0.01F;
      executor.write(program, lr, rate);
      executor.run_poisoned(program);
    }
    std::vector<std::vector<double>> out;
    const auto keep = [&](const Tensor& t) {
      const Tensor wide = t.to(DType::f64);
      out.emplace_back(wide.as<double>().begin(), wide.as<double>().end());
    };
    for (SlotId s = 0; s < slots.size(); ++s) {
      keep(executor.read_slot(s));
    }
    for (const ValueId v : outputs) {
      keep(executor.read(program, v));
    }
    return out;
  }

  // Sizes of the groups of `op` in the plan.
  std::vector<int> groups(std::string_view op) const {
    const Plan plan = make_plan(*g, DeviceKind::cpu);
    std::vector<int> sizes;
    for (size_t p = 0; p < plan.order.size(); p = static_cast<size_t>(plan.group_end[p])) {
      if (g->node(plan.order[p]).op->name == op) {
        sizes.push_back(plan.group_end[p] - static_cast<int>(p));
      }
    }
    return sizes;
  }

  SlotTable slots;
  std::unique_ptr<Graph> g;
  ValueId x = kNoValue, dy = kNoValue, lr = kNoValue;
  std::vector<ParameterGradient> gradients;
};

std::vector<ValueId> squares_of(const std::vector<UpdateOut>& out) {
  std::vector<ValueId> squares;
  for (const UpdateOut& o : out) {
    squares.push_back(o.squares);
  }
  return squares;
}

}  // namespace

TEST_CASE("updates by block are those behind each gradient, in groups") {
  for (const std::string name : {"adamw", "sgd"}) {
    CAPTURE(name);
    const std::unique_ptr<Optimizer> optimizer = optimizer_of(name);
    std::vector<std::vector<std::vector<double>>> results;
    for (const UpdateOrder order : {UpdateOrder::each, UpdateOrder::by_block}) {
      Stack stack(*optimizer);
      REQUIRE(stack.gradients.size() == 2 * (kBlocks + 1));
      const auto out = attach_updates(*stack.g, stack.gradients, *optimizer,
                                      {.lr = stack.lr, .measures = {.squares = true}}, order);
      REQUIRE(out.size() == stack.gradients.size());
      results.push_back(stack.run(squares_of(out)));
      if (order == UpdateOrder::by_block) {
        CHECK(stack.groups(name) == std::vector<int>{2 * (kBlocks + 1)});  // all are small
      }
    }
    CHECK(results[0] == results[1]);
    CHECK(results[0].back()[0] > 0);
  }
}

TEST_CASE("a block of large gradients is a group of its own") {
  const std::unique_ptr<Optimizer> optimizer = optimizer_of("adamw");
  Stack stack(*optimizer, 2048);  // bf16 gradients of 8 MiB and a little
  attach_updates(*stack.g, stack.gradients, *optimizer, {.lr = stack.lr}, UpdateOrder::by_block);
  CHECK(stack.groups("adamw") == std::vector<int>(kBlocks + 1, 2));
}

TEST_CASE("squares measured by updates are the sums of squares of the gradients") {
  const std::unique_ptr<Optimizer> optimizer = optimizer_of("adamw");
  Stack measured(*optimizer);
  const auto out = attach_updates(*measured.g, measured.gradients, *optimizer,
                                  {.lr = measured.lr, .measures = {.squares = true}});
  Stack summed(*optimizer);
  const auto sums = attach_sum_squares(*summed.g, summed.gradients, UpdateOrder::by_block);
  attach_updates(*summed.g, summed.gradients, *optimizer, {.lr = summed.lr});
  CHECK(measured.run(squares_of(out)) == summed.run(sums));
  CHECK(summed.groups("sum_squares") == std::vector<int>{2 * (kBlocks + 1)});
}

TEST_CASE("updates that wait for a computed factor form one group") {
  const std::unique_ptr<Optimizer> optimizer = optimizer_of("adamw");
  Stack stack(*optimizer);
  const auto sums = attach_sum_squares(*stack.g, stack.gradients, UpdateOrder::each);
  const ClipOut clip = clip_factor(*stack.g, sums, 0.5);
  attach_updates(*stack.g, stack.gradients, *optimizer, {.lr = stack.lr, .grad_scale = clip.factor},
                 UpdateOrder::by_block);
  CHECK(stack.run({clip.norm}).back()[0] > 0.5);
  CHECK(stack.groups("adamw") == std::vector<int>{2 * (kBlocks + 1)});
}

}  // namespace lithe
