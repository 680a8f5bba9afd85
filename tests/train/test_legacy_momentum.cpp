// freeze.legacy_momentum in whole runs: where each weight goes, memory, resume, refusals.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "train/image_run.h"
#include "train/run_checks.h"
#include "train/text_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

using Overrides = std::vector<std::string>;

const Overrides kLegacy = {"train.steps=400",
                           "freeze.schedule=ils",
                           "freeze.fraction=0.8",
                           "freeze.legacy_momentum=true",
                           "optimizer.adamw.epsilon=uncorrected",
                           "optimizer.adamw.eps=1e-6"};

struct State {
  std::vector<double> w, m, v;
  int64_t step = 0;
};

State state_of(const SlotTable& slots, const std::vector<Tensor>& all, SlotId parameter) {
  const auto values = [&](SlotId slot) {
    REQUIRE(slot != kNoSlot);
    const Tensor wide = all[static_cast<size_t>(slot)].to(DType::f64);
    return std::vector<double>(wide.as<double>().begin(), wide.as<double>().end());
  };
  const auto of = [&](const char* kind) {
    return slots.find(fmt::format("optimizer.{}.{}", kind, slots[parameter].name));
  };
  return {values(parameter), values(of("m")), values(of("v")),
          all[static_cast<size_t>(of("step"))].as<int64_t>()[0]};
}

}  // namespace

TEST_CASE("legacy momentum: frozen units that were trained drift, the others stay") {
  const TextFolder files("legacy_path");
  ImageRun run(files.path / "run", kLegacy);
  const SlotTable& slots = run.experiment.slots();
  const std::vector<SlotId>& units = run.experiment.passes().schedule()->units;
  const double lr = 3e-3;
  std::set<SlotId> ever;
  auto before = run.slots();
  int drifted = 0;
  int stayed = 0;
  for (int step = 0; step < 10; ++step) {
    CAPTURE(step);
    run.trainer.step();
    const auto after = run.slots();
    for (const SlotId unit : units) {
      INFO(slots[unit].name);
      const State a = state_of(slots, before, unit);
      const State b = state_of(slots, after, unit);
      if (slots[unit].trainable) {
        ever.insert(unit);
        CHECK(b.step == a.step + 1);
        continue;
      }
      if (!ever.contains(unit)) {
        ++stayed;
        CHECK(a.w == b.w);
        CHECK(b.step == 0);
        continue;
      }
      ++drifted;
      CHECK(b.step == a.step + 1);
      const bool decays = slots[unit].name.find("norm") == std::string::npos &&
                          slots[unit].name.find("cls_token") == std::string::npos &&
                          slots[unit].name.find("position_embeddings") == std::string::npos;
      const double t = static_cast<double>(b.step);
      double worst = 0;
      for (size_t i = 0; i < a.w.size(); ++i) {
        const double m = 0.9 * a.m[i];
        const double v = 0.999 * a.v[i];
        const double moved = lr * std::sqrt(1 - std::pow(0.999, t)) / (1 - std::pow(0.9, t)) * m /
                             (std::sqrt(v) + 1e-6);
        const double w = (a.w[i] - moved) * (1 - (decays ? lr * 0.05 : 0));
        worst = std::max({worst, std::abs(b.w[i] - w), std::abs(b.m[i] - m), std::abs(b.v[i] - v)});
      }
      CHECK(worst < 1e-6);
      CHECK(a.w != b.w);
    }
    for (SlotId s = 0; s < slots.size(); ++s) {
      if (slots[s].name.ends_with("output.dense.bias") && slots[s].kind == SlotKind::parameter) {
        CHECK_FALSE(same_bits(before[static_cast<size_t>(s)], after[static_cast<size_t>(s)]));
      }
    }
    before = after;
  }
  CHECK(ever.size() == units.size());
  CHECK(drifted > 100);
  CHECK(stayed > 20);
}

TEST_CASE("legacy momentum: scores, choices and memory of the plan") {
  const TextFolder files("legacy_memory");
  for (const Overrides& more : {Overrides{}, Overrides{"train.compute=bf16"},
                                Overrides{"train.clip_norm=1"}, Overrides{"train.accumulate=2"}}) {
    CAPTURE(fmt::format("{}", fmt::join(more, " ")));
    ImageRun run(files.path / "run", with(kLegacy, more));
    const int64_t predicted = run.experiment.memory().predicted_peak_bytes;
    losses(run, 7);
    CHECK(run.trainer.executor().memory().peak_bytes() == predicted);
    // No gradient is kept for what is frozen; only the learning rate lives longer.
    ImageRun strict(files.path / "strict",
                    with(with(kLegacy, more), {"freeze.legacy_momentum=false"}));
    CHECK(predicted - strict.experiment.memory().predicted_peak_bytes <= kArenaAlignment);
    // The copies that a step computes with follow their weights.
    const SlotTable& slots = run.experiment.slots();
    for (SlotId s = 0; s < slots.size(); ++s) {
      if (slots[s].copy_of != kNoSlot) {
        INFO(slots[s].name);
        CHECK(same_bits(run.trainer.executor().read_slot(s),
                        run.trainer.executor().read_slot(slots[s].copy_of).to(slots[s].dtype)));
      }
    }
  }
}

TEST_CASE("legacy momentum: resume is bit-equal, in the middle of exploration too") {
  const TextFolder files("legacy_resume");
  ImageRun whole(files.path / "whole", kLegacy);
  losses(whole, 14);
  {
    ImageRun first(files.path / "broken", kLegacy);
    losses(first, 2);
    const std::atomic<bool> stop{true};
    CHECK_THROWS_AS(first.trainer.run(stop), Interrupted);
  }
  ImageRun second(files.path / "broken", kLegacy, RunMode::kResume);
  CHECK(second.trainer.steps_done() == 3);
  losses(second, 11);
  check_same_bits(whole, second);
  CHECK(whole.experiment.passes().state() == second.experiment.passes().state());
}

TEST_CASE("legacy momentum is refused where nothing is scheduled or nothing can coast") {
  const auto message = [](const Overrides& overrides) -> std::string {
    try {
      const TinyRun run(overrides);
    } catch (const UsageError& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message({"freeze.layers=0", "freeze.legacy_momentum=true"}).find("is for schedules") !=
        std::string::npos);
  CHECK(message({"freeze.schedule=ils", "freeze.legacy_momentum=true", "optimizer.name=sgd"})
            .find("use optimizer.name adamw") != std::string::npos);
}
