// Differential tests of the two passes, and what they refuse.
#include <doctest/doctest.h>

#include <map>

#include "compress/passes.h"
#include "compress/selector.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/elementwise.h"
#include "train/tiny_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

// All slots after some steps, by name.
std::map<std::string, Tensor> train(TinyRun& run, int steps) {
  for (int i = 0; i < steps; ++i) {
    run.step(i);
  }
  std::map<std::string, Tensor> out;
  for (SlotId s = 0; s < run.experiment.slots().size(); ++s) {
    out.emplace(run.experiment.slots()[s].name, run.executor.read_slot(s));
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

const std::vector<std::string> kDropout = {"model.vit.hidden_dropout_prob=0.1",
                                           "model.vit.attention_probs_dropout_prob=0.1"};

std::vector<std::string> with(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

TEST_CASE("recompute leaves every weight bit-equal and saves activations") {
  for (const auto& base : {std::vector<std::string>{}, kDropout,
                           std::vector<std::string>{"model.attention=unfused"}}) {
    TinyRun plain(base);
    TinyRun recomputed(with(base, {"recompute.blocks=all"}));
    const auto a = train(plain, 3);
    const auto b = train(recomputed, 3);
    REQUIRE(a.size() == b.size());
    for (const auto& [name, value] : a) {
      INFO(name);
      CHECK(same_bits(value, b.at(name)));
    }
    CHECK(saved_bytes(recomputed.experiment.update_step()) <
          saved_bytes(plain.experiment.update_step()) / 2);
    CHECK(recomputed.experiment.update_step().plan.order.size() >
          plain.experiment.update_step().plan.order.size());
  }
}

TEST_CASE("recompute keeps one value between blocks, also where its sum is fused with a norm") {
  const std::vector<std::string> recompute = {"recompute.blocks=all"};
  TinyRun fused(recompute);
  TinyRun apart(with(recompute, {"train.fuse=false"}));
  CHECK(saved_bytes(fused.experiment.update_step()) <= saved_bytes(apart.experiment.update_step()));
}

TEST_CASE("recompute of a part by pattern is bit-equal too") {
  TinyRun plain;
  TinyRun recomputed({"recompute.blocks=none", "recompute.patterns=*/gelu"});
  const auto a = train(plain, 2);
  const auto b = train(recomputed, 2);
  for (const auto& [name, value] : a) {
    CHECK(same_bits(value, b.at(name)));
  }
  CHECK(saved_bytes(recomputed.experiment.update_step()) <
        saved_bytes(plain.experiment.update_step()));
}

TEST_CASE("freeze keeps the chosen weights and leaves the other gradients bit-equal") {
  TinyRun plain(kDropout);
  TinyRun frozen(with(kDropout, {"freeze.layers=0-1", "freeze.patterns=vit.embeddings.*"}));
  const auto before = train(frozen, 0);
  plain.step(0);
  frozen.step(0);
  int fixed = 0;
  int trained = 0;
  for (SlotId s = 0; s < frozen.experiment.slots().size(); ++s) {
    const Slot& slot = frozen.experiment.slots()[s];
    const Tensor now = frozen.executor.read_slot(s);
    const SlotId other = plain.experiment.slots().find(slot.name);
    if (slot.kind == SlotKind::parameter && !slot.trainable) {
      CHECK(same_bits(now, before.at(slot.name)));
      ++fixed;
    } else {
      // One step from equal weights: equal bits of weight, m and v mean equal bits of the gradient.
      INFO(slot.name);
      CHECK(same_bits(now, plain.executor.read_slot(other)));
      trained += slot.kind == SlotKind::parameter ? 1 : 0;
    }
  }
  CHECK(fixed == 2 * 16 + 4);
  CHECK(trained == 56 - fixed);
  // Nothing of the frozen blocks is saved: their input gradients are not needed either.
  CHECK(saved_bytes(frozen.experiment.update_step()) <
        saved_bytes(plain.experiment.update_step()) / 2);
}

TEST_CASE("a scattered freeze leaves the other gradients bit-equal") {
  TinyRun plain;
  TinyRun frozen({"freeze.patterns=[\"*output.dense.weight\", \"*query.weight\"]"});
  plain.step(0);
  frozen.step(0);
  for (SlotId s = 0; s < frozen.experiment.slots().size(); ++s) {
    const Slot& slot = frozen.experiment.slots()[s];
    if (slot.kind == SlotKind::parameter && slot.trainable) {
      INFO(slot.name);
      CHECK(same_bits(frozen.executor.read_slot(s),
                      plain.executor.read_slot(plain.experiment.slots().find(slot.name))));
    }
  }
}

TEST_CASE("freeze and recompute compose") {
  TinyRun frozen(with(kDropout, {"freeze.layers=0"}));
  TinyRun both(with(kDropout, {"freeze.layers=0", "recompute.blocks=all"}));
  const auto a = train(frozen, 2);
  const auto b = train(both, 2);
  for (const auto& [name, value] : a) {
    CHECK(same_bits(value, b.at(name)));
  }
}

TEST_CASE("all_but freezes the rest") {
  TinyRun run({"freeze.all_but=classifier.*"});
  int trainable = 0;
  for (SlotId s = 0; s < run.experiment.slots().size(); ++s) {
    const Slot& slot = run.experiment.slots()[s];
    trainable += slot.kind == SlotKind::parameter && slot.trainable ? 1 : 0;
  }
  CHECK(trainable == 2);
  CHECK(saved_bytes(run.experiment.update_step()) < 16384);
}

TEST_CASE("selectors that match nothing are refused with the nearest name") {
  const auto message = [](const std::vector<std::string>& overrides) -> std::string {
    try {
      const TinyRun run(overrides);
    } catch (const Error& e) {
      CHECK(e.code() == ExitCode::kUsage);
      return e.what();
    }
    return "";
  };
  CHECK(message({"freeze.patterns=classifer.weight"}).find("'classifier.weight'") !=
        std::string::npos);
  CHECK(message({"freeze.layers=0-3"}).find("3 blocks") != std::string::npos);
  CHECK(message({"freeze.layers=x"}).find("0-2") != std::string::npos);
  CHECK(message({"freeze.layers=all", "freeze.patterns=*"}).find("all 56 parameters") !=
        std::string::npos);
  CHECK(message({"recompute.patterns=*nothing*"}).find("no forward node") != std::string::npos);
  CHECK(message({"freeze=on"}).find("nothing is chosen") != std::string::npos);
}

TEST_CASE("block ranges") {
  CHECK(parse_blocks("all", 3, "k") == std::vector<int>{0, 1, 2});
  CHECK(parse_blocks("0-1, 3", 4, "k") == std::vector<int>{0, 1, 3});
  CHECK(parse_blocks("last 2", 12, "k") == std::vector<int>{10, 11});
  CHECK_THROWS_AS(parse_blocks("", 3, "k"), UsageError);
  CHECK_THROWS_AS(parse_blocks("2-", 3, "k"), UsageError);
  CHECK_THROWS_AS(parse_blocks("99999999999", 3, "k"), UsageError);
}

TEST_CASE("passes tell their sites and savings before they act, and can be undone") {
  const recipe::Recipe recipe = tiny_recipe({"freeze.layers=0-1", "recompute.blocks=0,2"});
  const recipe::Recipe plain = tiny_recipe();
  Experiment experiment(plain, DeviceKind::cpu);
  SlotTable& slots = experiment.slots();
  const PassManager passes = make_passes(recipe);
  REQUIRE(passes.passes().size() == 2);
  Pass& freeze = *passes.passes()[0];
  Pass& recompute = *passes.passes()[1];

  const PassTarget model{&experiment.model(), &slots, nullptr};
  CHECK(freeze.match(model).size() == 32);
  CHECK(freeze.match(model)[0].refused.empty());
  int64_t frozen_bytes = 0;
  for (const Site& site : freeze.match(model)) {
    frozen_bytes += byte_size(DType::f32, site.shape);
  }
  CHECK(freeze.estimate(model).bytes[static_cast<size_t>(MemoryClass::gradients)] == -frozen_bytes);
  std::vector<std::string> preview;
  CHECK(passes.apply_model(model, &preview).front().sites == 32);
  CHECK(preview == std::vector<std::string>{"freeze: will change 32 sites (0 refused)"});
  CHECK(freeze.match(model)[0].refused == "frozen already");
  CHECK(freeze.invert(model).empty());
  CHECK(freeze.match(model)[0].refused.empty());

  Graph g(slots);
  const nn::ForwardOut out = experiment.model().build(g, {.batch = 2, .training = true});
  std::vector<ValueId> wanted;
  for (ValueId v : g.leaves()) {
    if (g.value(v).slot != kNoSlot) {
      wanted.push_back(v);
    }
  }
  gradients(g, out.loss, 1.0, wanted);
  const PassTarget graph{&experiment.model(), &slots, &g};
  CHECK(recompute.match(graph).size() == 2);
  const PassEstimate estimate = recompute.estimate(graph);
  CHECK(estimate.bytes[static_cast<size_t>(MemoryClass::saved_activations)] < 0);
  CHECK(estimate.flops > 0);
  CHECK(recompute.apply(graph).sites == 2);
  CHECK_NOTHROW(verify(g, "recompute"));
  CHECK(recompute.match(graph)[0].refused == "backward reads nothing of it");
}

TEST_CASE("the state of passes goes through checkpoints, and another recipe's is refused") {
  const PassManager passes = make_passes(tiny_recipe({"freeze.layers=0"}));
  CHECK_NOTHROW(passes.restore(passes.state()));
  const PassManager more = make_passes(tiny_recipe({"freeze.layers=0", "recompute=on"}));
  CHECK_THROWS_AS(more.restore(passes.state()), FileError);
  CHECK_THROWS_AS(passes.restore(more.state()), FileError);
}
