// LoRA against the PEFT library: an adapter folder that PEFT saved, its logits, loss, all
// gradients, ten training steps and the merged model, from the golden files of
// tests/reference/make_lora_golden.py.
#include <doctest/doctest.h>

#include <array>

#include "compress/passes.h"
#include "nn/bert_golden.h"
#include "nn/layers.h"
#include "optim/optimizer.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

constexpr double kTolerance = 1e-4;  // relative, fp32

recipe::Recipe golden_recipe() {
  recipe::Schema schema;
  schema.section("optimizer", optimizer_options(), "");
  add_pass_options(schema);
  return recipe::Recipe::parse(
      fmt::format("optimizer: {{name: adamw, weight_decay: 0.05, adamw: {{eps: 1.0e-6}}}}\n"
                  "adapter: {{path: {}/tests/golden/lora_small}}",
                  LITHE_SOURCE_DIR),
      "golden.yaml", schema);
}

// The golden classifier with the golden adapter.
struct GoldenLora {
  explicit GoldenLora(DType weights = DType::f32)
      : bert("classification"),
        file(golden_file("lora_small")),
        recipe(golden_recipe()),
        passes(make_passes(recipe)) {
    for (SlotId slot : bert.parameters) {
      bert.slots[slot].dtype = weights;
    }
    report = passes.apply_model(target()).front();
  }
  PassTarget target() { return {.model = bert.model.get(), .slots = &bert.slots}; }
  void load(Executor& executor) {
    bert.load(executor);
    passes.start(target(),
                 [&](SlotId slot, const Tensor& value) { executor.write_slot(slot, value); });
  }

  GoldenBert bert;
  SafetensorsFile file;
  recipe::Recipe recipe;
  PassManager passes;
  PassReport report;
};

double scalar(const Tensor& t) { return t.to(DType::f64).as<double>()[0]; }

}  // namespace

TEST_CASE("an adapter of PEFT gives PEFT's logits, loss and gradients") {
  for (const auto& memory : twin_devices()) {
    for (const DType weights : {DType::f32, DType::f64}) {
      for (const bool unfused : {false, true}) {
        CAPTURE(memory->description());
        CAPTURE(unfused);
        GoldenLora lora(weights);
        CHECK(lora.report.sites == 12);
        GoldenStep step(lora.bert, golden_options(), unfused, memory);
        lora.load(step.executor);
        lora.bert.feed(step.executor, step.program, 0);
        step.executor.run(step.program);
        const double limit = weights == DType::f64 ? 2e-5 : kTolerance;
        CHECK(relative_error(step.read(step.out.logits), lora.file.read("logits")) < limit);
        const double loss = scalar(row(lora.file.read("loss"), 0));
        CHECK(std::abs(scalar(step.read(step.out.loss)) - loss) < limit * loss);
        // A and B of twelve layers, their biases, and the head.
        CHECK(step.grads.size() == 3 * 12 + 2);
        double worst = 0;
        for (const ParameterGradient& p : step.grads) {
          const std::string& name = lora.bert.name(step.g.value(p.parameter).slot);
          INFO(name);
          const double error =
              relative_error(step.read(p.gradient), lora.file.read("grad." + name));
          CHECK(error < limit);
          worst = std::max(worst, error);
        }
        MESSAGE(fmt::format("{}, {}: worst gradient error {:.2g}", dtype_name(weights),
                            memory->description(), worst));
      }
    }
  }
}

TEST_CASE("ten AdamW steps of an adapter and its merged weights are PEFT's") {
  for (const auto& memory : twin_devices()) {
    CAPTURE(memory->description());
    GoldenLora lora;
    SlotTable& slots = lora.bert.slots;
    const std::unique_ptr<Optimizer> optimizer = make_optimizer(lora.recipe.section("optimizer"));
    std::vector<SlotId> trained;
    for (SlotId slot = 0, count = slots.size(); slot < count; ++slot) {
      if (slots[slot].trainable) {
        trained.push_back(slot);
        optimizer->add_state(slots, slot);
      }
    }
    Graph g(slots);
    const nn::ForwardOut out = lora.bert.model->build(g, golden_options());
    g.mark_output(out.loss, "loss");
    g.mark_output(out.logits, "logits");
    fuse_residual_norms(g);
    CHECK(fuse_parallel_linears(g) == 3);  // query, key and value stack, adapted or not
    const auto grads = gradients(g, out.loss, 1.0, trainable_leaves(g));
    const ValueId lr = g.input("lr", DType::f32, {1});
    attach_updates(g, grads, *optimizer, {.lr = lr});
    g.eliminate_dead();
    const Plan plan = make_plan(g, memory->kind());
    Executor executor(memory, kernel_lookup(memory->kind()), slots);
    const Program program = executor.bind(g, plan);
    for (SlotId slot = 0; slot < slots.size(); ++slot) {
      executor.write_slot(slot, initial_value(slots, slot, 0));
    }
    lora.load(executor);
    const Tensor losses = lora.file.read("loss");
    const auto run = [&](int64_t batch, float rate) {
      lora.bert.feed(executor, program, batch);
      executor.write(program, lr, Tensor::from<float>({1}, std::array<float, 1>{rate}));
      executor.run(program);
      return scalar(executor.read(program, out.loss));
    };
    for (int64_t i = 0; i < losses.numel(); ++i) {
      const double wanted = scalar(row(losses, i));
      INFO("step " << i);
      CHECK(std::abs(run(i, 2e-3f) - wanted) < kTolerance * wanted);
    }
    double worst = 0;
    for (const SlotId slot : trained) {
      INFO(slots[slot].name);
      const double error =
          relative_error(executor.read_slot(slot), lora.file.read("final." + slots[slot].name));
      CHECK(error < kTolerance);
      worst = std::max(worst, error);
    }
    MESSAGE(fmt::format("{}: worst parameter error after ten steps {:.2g}", memory->description(),
                        worst));

    int compared = 0;
    lora.bert.model->visit([&](const nn::Module& module) {
      for (const nn::Parameter& p : module.parameters()) {
        const std::string name = "merged." + slots[p.slot].name;
        if (lora.file.contains(name)) {
          const Tensor merged =
              module.file_value(p, [&](SlotId s) { return executor.read_slot(s); });
          CHECK(relative_error(merged, lora.file.read(name)) < 1e-5);
          CHECK(relative_error(executor.read_slot(p.slot), lora.file.read(name)) > 1e-2);
          ++compared;
        }
      }
    });
    CHECK(compared == 2);
    run(0, 0);
    CHECK(relative_error(executor.read(program, out.logits), lora.file.read("final_logits")) <
          kTolerance);
  }
}
