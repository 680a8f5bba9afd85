// What SlimFit promises of whole runs beside the choice of units: evaluation that keeps nothing,
// memory that does not grow, gradients that do not depend on what else is frozen.
#include <doctest/doctest.h>

#include <set>

#include "train/image_run.h"
#include "train/run_checks.h"
#include "train/text_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

using Overrides = std::vector<std::string>;

const Overrides kOriginal = {"codec.preset=slimfit_original", "model.attention=unfused"};
const Overrides kClean = {"codec.preset=slimfit"};
const Overrides kDropout = {"model.vit.hidden_dropout_prob=0.1",
                            "model.vit.attention_probs_dropout_prob=0.1"};

std::set<std::string_view> ops_of(const StepGraph& step) {
  std::set<std::string_view> out;
  for (NodeId n : step.plan.order) {
    out.insert(step.graph->node(n).op->name);
  }
  return out;
}

int64_t saved_bytes(const StepGraph& step) {
  int64_t sum = 0;
  for (const Buffer& b : step.plan.buffers) {
    sum += b.cls == MemoryClass::saved_activations ? b.bytes : 0;
  }
  return sum;
}

}  // namespace

TEST_CASE("evaluation keeps nothing for backward and codes nothing, and dropout is back after it") {
  const TextFolder files("slimfit_modes");
  for (const Overrides& codec : {kOriginal, kClean}) {
    const Overrides options = with(
        with(codec, kDropout),
        {"eval.every_steps=1000", "train.steps=400", "freeze.schedule=ils", "freeze.fraction=0.8"});
    ImageRun run(files.path / "run", options);
    const std::set<std::string_view> training = ops_of(*run.experiment.steps().front());
    const StepGraph& eval = *run.experiment.steps().back();
    CHECK(saved_bytes(*run.experiment.steps().front()) > 0);
    CHECK(saved_bytes(eval) == 0);
    CHECK(eval.rng == kNoValue);
    // What the codec adds to a step's ops.
    const recipe::Recipe plain_recipe = tiny_recipe(with(options, {"codec=off"}));
    Experiment plain(plain_recipe, DeviceKind::cpu);
    const std::set<std::string_view> uncoded = ops_of(*plain.steps().front());
    int added = 0;
    for (const std::string_view op : training) {
      if (!uncoded.contains(op)) {
        CAPTURE(op);
        ++added;
        CHECK_FALSE(ops_of(eval).contains(op));
      }
    }
    CHECK(added >= 2);

    ImageRun other(files.path / "other", options);
    losses(run, 4);
    losses(other, 2);
    const double once = other.trainer.evaluate().loss;
    CHECK(other.trainer.evaluate().loss == once);
    losses(other, 2);
    check_same_bits(run, other);
  }
}

TEST_CASE("in a step, gradients take the bytes of what is trained in it and no more") {
  const TextFolder files("slimfit_gradients");
  for (const char* legacy : {"false", "true"}) {
    ImageRun run(files.path / legacy,
                 {"train.steps=400", "freeze.schedule=ils", "freeze.fraction=0.9",
                  fmt::format("freeze.legacy_momentum={}", legacy)});
    const SlotTable& slots = run.experiment.slots();
    for (int step = 0; step < 5; ++step) {
      run.trainer.step();
      int64_t trained = 0;
      for (SlotId s = 0; s < slots.size(); ++s) {
        if (slots[s].kind == SlotKind::parameter && slots[s].trainable) {
          trained += round_up(byte_size(slots[s].dtype, slots[s].shape), kArenaAlignment);
        }
      }
      int64_t gradients = 0;
      for (const Buffer& b : run.experiment.update_step().plan.buffers) {
        gradients += b.cls == MemoryClass::gradients ? b.bytes : 0;
      }
      CHECK(gradients > 0);
      CHECK(gradients <= trained);
    }
  }
}

TEST_CASE("a thousand steps take the memory of the first") {
  const TextFolder files("slimfit_thousand");
  constexpr uint8_t kMark = 0xa5;
  for (const std::string schedule : {"ils", "random"}) {
    ImageRun run(files.path / schedule,
                 with(kClean, {"freeze.schedule=" + schedule, "freeze.fraction=0.9",
                               "train.steps=1000", "train.batch_size=2"}));
    const MemoryReport report = run.experiment.memory();
    Executor& executor = run.trainer.executor();
    executor.mark_arena(kMark);
    losses(run, 500);
    CHECK(executor.memory().peak_bytes() == report.predicted_peak_bytes);
    CHECK(executor.touched_arena_bytes(kMark) <= report.arena_bytes);
  }
}

TEST_CASE("a trained weight's gradient does not depend on which linear layers are frozen") {
  // The scales of norms are frozen in all of them: pruning what they keep is what may differ.
  const std::vector<Overrides> frozen = {
      {"*layernorm*.weight"},
      {"*layernorm*.weight", "*query.weight", "*intermediate*.weight"},
      {"*layernorm*.weight", "*key.weight", "*value.weight", "*attention.output.dense.weight",
       "*layer.0.output.dense.weight"},
  };
  for (const Overrides& codec : {kOriginal, kClean}) {
    std::vector<Tensor> results;
    for (const Overrides& patterns : frozen) {
      std::string list;
      for (const std::string& pattern : patterns) {
        list += (list.empty() ? "\"" : ", \"") + pattern + "\"";
      }
      TinyRun run(with(codec, {"freeze.patterns=[" + list + "]"}));
      run.step(0);
      const SlotTable& slots = run.experiment.slots();
      for (const char* name : {"vit.encoder.layer.1.output.dense.weight",
                               "optimizer.m.vit.encoder.layer.1.output.dense.weight",
                               "vit.encoder.layer.0.attention.attention.query.bias"}) {
        results.push_back(run.executor.read_slot(slots.find(name)));
      }
    }
    for (size_t i = 3; i < results.size(); ++i) {
      CHECK(same_bits(results[i], results[i % 3]));
    }
  }
}
