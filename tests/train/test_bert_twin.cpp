// BERT against PyTorch: logits, loss, every parameter gradient and ten training steps, from the
// golden files of tests/reference/make_bert_golden.py.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <map>

#include "nn/bert_golden.h"
#include "optim/optimizer.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

constexpr double kTolerance = 1e-4;  // relative, fp32

std::vector<std::pair<std::shared_ptr<DeviceMemory>, bool>> device_forms() {
  std::vector<std::pair<std::shared_ptr<DeviceMemory>, bool>> out;
  for (const std::shared_ptr<DeviceMemory>& memory : twin_devices()) {
    out.emplace_back(memory, false);
    out.emplace_back(memory, true);
  }
  return out;
}

double scalar(const Tensor& t) { return t.to(DType::f64).as<double>()[0]; }

// Worst relative error of the parameters' gradients against the golden ones.
double worst_gradient(const GoldenBert& bert, const GoldenStep& step, double tolerance) {
  const double all = bert.description.at("gradient_norm").get<double>();
  double worst = 0;
  for (const ParameterGradient& p : step.grads) {
    const std::string name = bert.name(step.g.value(p.parameter).slot);
    CHECK(step.g.dtype(p.gradient) == step.g.dtype(p.parameter));
    const double error = relative_error(step.read(p.gradient), bert.file.read("grad." + name),
                                        bert.undetermined(name) ? all : 0);
    INFO(name);
    CHECK(error < tolerance);
    worst = std::max(worst, error);
  }
  return worst;
}

std::unique_ptr<Optimizer> golden_optimizer() {
  const recipe::Schema schema = recipe::Schema().section("optimizer", optimizer_options(), "");
  return make_optimizer(
      recipe::Recipe::parse("optimizer: {name: adamw, weight_decay: 0.05, adamw: {eps: 1.0e-6}}",
                            "golden.yaml", schema)
          .section("optimizer"));
}

}  // namespace

TEST_CASE("BERT's logits, loss and all gradients are PyTorch's") {
  const std::map<std::string, size_t> tensors = {
      {"classification", 57}, {"regression", 57}, {"span", 55}};
  for (const auto& [task, count] : tensors) {
    for (const auto& [memory, unfused] : device_forms()) {
      CAPTURE(task);
      CAPTURE(unfused);
      CAPTURE(memory->description());
      GoldenBert bert(task);
      CHECK(nn::task_name(bert.model->task()) == task);
      const GoldenStep step(bert, golden_options(), unfused, memory);
      REQUIRE(step.grads.size() == count);
      CHECK(relative_error(step.read(step.out.logits), bert.file.read("logits")) < kTolerance);
      const double loss = scalar(row(bert.file.read("loss"), 0));
      CHECK(std::abs(scalar(step.read(step.out.loss)) - loss) < kTolerance * loss);
      const double worst = worst_gradient(bert, step, kTolerance);
      MESSAGE(fmt::format("{}, {}, {}: worst gradient error {:.2g}", task,
                          unfused ? "unfused" : "fused", memory->description(), worst));
    }
  }
}

TEST_CASE("fp64 weights make everything fp64") {
  GoldenBert bert("span");
  for (SlotId slot : bert.parameters) {
    bert.slots[slot].dtype = DType::f64;
  }
  const GoldenStep step(bert, golden_options(DType::bf16), false);
  CHECK(step.g.dtype(step.out.loss) == DType::f64);
  CHECK(step.g.dtype(step.out.hidden) == DType::f64);
  CHECK(relative_error(step.read(step.out.logits), bert.file.read("logits")) < 1e-6);
  worst_gradient(bert, step, 1e-5);
}

TEST_CASE("the padding token's embedding gets no gradient, as PyTorch's padding_idx") {
  GoldenBert bert("span");
  const GoldenStep step(bert, golden_options(), false);
  for (const ParameterGradient& p : step.grads) {
    if (step.g.name(p.parameter) == "bert.embeddings.word_embeddings.weight") {
      const Tensor gradient = step.read(p.gradient);
      CHECK(norm(row(gradient, 0)) == 0);
      CHECK(norm(gradient) > 0);
    }
  }
}

TEST_CASE("ten AdamW steps of BERT are PyTorch's") {
  for (const auto& [memory, unfused] : device_forms()) {
    const std::string task = unfused ? "classification" : "span";
    CAPTURE(task);
    CAPTURE(memory->description());
    GoldenBert bert(task);
    const std::unique_ptr<Optimizer> optimizer = golden_optimizer();
    for (SlotId slot : bert.parameters) {
      optimizer->add_state(bert.slots, slot);
    }
    Graph g(bert.slots);
    const nn::ForwardOut out = bert.model->build(g, golden_options());
    g.mark_output(out.loss, "loss");
    if (!unfused) {
      fuse_residual_norms(g);
      fuse_parallel_linears(g);
    }
    const auto grads = gradients(g, out.loss, 1.0, trainable_leaves(g));
    const ValueId lr = g.input("lr", DType::f32, {1});
    attach_updates(g, grads, *optimizer, {.lr = lr});
    g.eliminate_dead();
    const Plan plan = make_plan(g, memory->kind());
    Executor executor(memory, kernel_lookup(memory->kind()), bert.slots);
    const Program program = executor.bind(g, plan);
    for (SlotId slot = 0; slot < bert.slots.size(); ++slot) {
      executor.write_slot(slot, initial_value(bert.slots, slot, 0));
    }
    bert.load(executor);

    const Tensor losses = bert.file.read("loss");
    REQUIRE(losses.numel() == 10);
    for (int64_t i = 0; i < losses.numel(); ++i) {
      bert.feed(executor, program, i);
      const std::array<float, 1> rate = {2e-3f};
      executor.write(program, lr, Tensor::from<float>({1}, rate));
      executor.run(program);
      const double wanted = scalar(row(losses, i));
      INFO("step " << i);
      CHECK(std::abs(scalar(executor.read(program, out.loss)) - wanted) < kTolerance * wanted);
    }
    double worst = 0;
    for (SlotId slot : bert.parameters) {
      const std::string& name = bert.name(slot);
      if (bert.undetermined(name)) {
        continue;
      }
      const double error =
          relative_error(executor.read_slot(slot), bert.file.read("final." + name));
      worst = std::max(worst, error);
      INFO(name);
      CHECK(error < kTolerance);
    }
    MESSAGE(fmt::format("{}, {}: worst parameter error after ten steps {:.2g}", task,
                        memory->description(), worst));
  }
}

// The golden files hold the logits of ten batches from PyTorch's model converted to bf16: weights,
// activations and products rounded as here. Two such runs round differently in places, so each may
// be off by as much; twice PyTorch's own error is the bound.
TEST_CASE("bf16 logits are as near to fp32 as PyTorch's") {
  for (const std::string task : {"classification", "regression", "span"}) {
    for (const auto& [memory, unfused] : device_forms()) {
      CAPTURE(task);
      CAPTURE(unfused);
      CAPTURE(memory->description());
      GoldenBert bert(task);
      GoldenStep step(bert, golden_options(DType::bf16), unfused, memory);
      CHECK(step.g.dtype(step.out.hidden) == DType::bf16);
      CHECK(step.g.dtype(step.out.logits) == DType::f32);
      CHECK(step.g.dtype(step.out.loss) == DType::f32);
      const Tensor exact = bert.file.read("initial_logits.f32");
      const double peer = relative_error(bert.file.read("initial_logits.bf16"), exact);
      double squares = 0;
      for (int64_t i = 0; i < exact.shape()[0]; ++i) {
        bert.feed(step.executor, step.program, i);
        step.executor.run(step.program);
        squares += std::pow(relative_error(step.read(step.out.logits), row(exact, i), 1), 2);
      }
      const double error = std::sqrt(squares) / norm(exact);
      CHECK(error > 1e-4);  // bf16 it was
      CHECK(error < 2 * peer);
      MESSAGE(fmt::format("{}, {}, {}: bf16 off by {:.2g}, PyTorch's by {:.2g}", task,
                          unfused ? "unfused" : "fused", memory->description(), error, peer));
    }
  }
}

// By the same bound, over all gradients as one vector.
TEST_CASE("gradients through bf16 activations are fp32 and as near as PyTorch's") {
  for (const auto& [memory, unfused] : device_forms()) {
    for (const std::string task : {"classification", "regression", "span"}) {
      CAPTURE(task);
      CAPTURE(memory->description());
      GoldenBert bert(task);
      const GoldenStep step(bert, golden_options(DType::bf16), unfused, memory);
      double squares = 0;
      double total = 0;
      for (const ParameterGradient& p : step.grads) {
        CHECK(step.g.dtype(p.gradient) == DType::f32);
        const Tensor golden = bert.file.read("grad." + bert.name(step.g.value(p.parameter).slot));
        squares += std::pow(relative_error(step.read(p.gradient), golden, 1), 2);
        total += std::pow(norm(golden), 2);
      }
      const double error = std::sqrt(squares / total);
      const double peer = bert.description.at("bf16_gradient_error").get<double>();
      CHECK(error < 2 * peer);
      MESSAGE(fmt::format("{}, {}, {}: bf16 gradients off by {:.2g}, PyTorch's by {:.2g}", task,
                          unfused ? "unfused" : "fused", memory->description(), error, peer));
    }
  }
}
