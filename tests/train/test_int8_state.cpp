// optimizer.adamw.state int8 in whole runs: bytes, learning, resume, schedules.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "train/image_run.h"
#include "train/run_checks.h"
#include "train/text_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

using Overrides = std::vector<std::string>;

// A ViT whose matrices have 4096 elements and more.
const Overrides kWide = {"model.vit.hidden_size=64", "model.vit.intermediate_size=128",
                         "train.steps=400"};
constexpr size_t kSteps = 50;
const Overrides kInt8 = with(kWide, {"optimizer.adamw.state=int8"});

int64_t optimizer_bytes(Experiment& experiment) {
  return experiment.memory().peak_by_class[static_cast<size_t>(MemoryClass::optimizer)];
}

}  // namespace

TEST_CASE("int8 state: which tensors have it, and bytes as planned") {
  const TextFolder files("int8_bytes");
  const recipe::Recipe recipe = tiny_recipe(kInt8);
  Experiment coded(recipe, DeviceKind::cpu);
  const SlotTable& slots = coded.slots();
  int64_t wanted = 0;
  int coded_tensors = 0;
  const int64_t align = kArenaAlignment;
  for (SlotId s = 0; s < slots.size(); ++s) {
    if (slots[s].kind != SlotKind::parameter) {
      continue;
    }
    const int64_t n = slots[s].shape.numel();
    const SlotId codes = slots.find("optimizer.codes." + slots[s].name);
    INFO(slots[s].name);
    CHECK((codes != kNoSlot) == (n >= 4096));
    CHECK((slots.find("optimizer.m." + slots[s].name) != kNoSlot) == (n < 4096));
    const int64_t blocks = (n + 255) / 256;
    if (n >= 4096) {
      ++coded_tensors;
      wanted += round_up(2 * 256 * blocks, align) + round_up(8 * blocks, align);
      CHECK(slots[codes].shape == Shape{blocks, 2, 256});
    } else {
      wanted += 2 * round_up(4 * n, align);
    }
    wanted += round_up(int64_t{8}, align);
  }
  CHECK(coded_tensors == 3 * 6);
  CHECK(optimizer_bytes(coded) == wanted);

  // Planned is what a run takes, and it takes less.
  ImageRun run(files.path / "run", kInt8);
  const int64_t predicted = run.experiment.memory().predicted_peak_bytes;
  losses(run, 3);
  CHECK(run.trainer.executor().memory().peak_bytes() == predicted);
  ImageRun plain(files.path / "plain", kWide);
  CHECK(optimizer_bytes(run.experiment) < optimizer_bytes(plain.experiment) / 2);
}

TEST_CASE("int8 state: tables stay in fp32 unless asked for") {
  const TextFolder files("int8_tables");
  const Overrides wide = {"model.bert.hidden_size=256", "optimizer.adamw.state=int8"};
  const std::string table = "bert.embeddings.word_embeddings.weight";
  for (const bool asked : {false, true}) {
    const recipe::Recipe recipe = recipe::Recipe::parse(
        files.recipe(), "text.yaml", train_options(),
        with(wide, {fmt::format("optimizer.adamw.int8_embeddings={}", asked)}));
    Experiment experiment(recipe, DeviceKind::cpu);
    const SlotTable& slots = experiment.slots();
    REQUIRE(slots[slots.find(table)].shape.numel() >= 4096);
    CHECK((slots.find("optimizer.codes." + table) != kNoSlot) == asked);
    CHECK(slots.find("optimizer.codes.bert.pooler.dense.weight") != kNoSlot);
  }
  CHECK_THROWS_AS(TinyRun({"optimizer.adamw.int8_embeddings=true"}), UsageError);
  CHECK_THROWS_AS(TinyRun({"optimizer.adamw.state=int4"}), UsageError);
}

TEST_CASE("int8 state: a run learns as with fp32 state") {
  const TextFolder files("int8_learns");
  // Large batches: with small ones the smallest difference grows into another run.
  const Overrides calm = {"train.batch_size=32", "optimizer.lr=1e-3"};
  for (const Overrides& more :
       {Overrides{}, Overrides{"train.compute=bf16", "optimizer.adamw.epsilon=uncorrected",
                               "optimizer.adamw.eps=1e-6"}}) {
    CAPTURE(fmt::format("{}", fmt::join(more, " ")));
    ImageRun plain(files.path / "plain", with(kWide, with(calm, more)));
    ImageRun coded(files.path / "coded", with(kInt8, with(calm, more)));
    const auto a = losses(plain, kSteps);
    const auto b = losses(coded, kSteps);
    CHECK(a[0] == b[0]);
    CHECK(b[1] == doctest::Approx(a[1]).epsilon(1e-3));  // an update does not read what it rounds
    double apart = 0;
    for (size_t i = 0; i < kSteps; ++i) {
      apart = std::max(apart, std::abs(a[i] - b[i]));
    }
    CAPTURE(apart);
    CHECK(b[kSteps - 1] < 0.6 * b[0]);
    CHECK(apart < 0.005);
  }
}

TEST_CASE("int8 state: resume is bit-equal, and state of the other kind is refused") {
  const TextFolder files("int8_resume");
  for (const Overrides& more :
       {Overrides{"model.vit.hidden_dropout_prob=0.1"},
        Overrides{"freeze.schedule=ils", "freeze.fraction=0.9", "train.accumulate=2"},
        Overrides{"freeze.schedule=ils", "freeze.fraction=0.9", "freeze.legacy_momentum=true",
                  "train.clip_norm=1", "train.compute=bf16"}}) {
    CAPTURE(fmt::format("{}", fmt::join(more, " ")));
    const Overrides options = with(kInt8, more);
    ImageRun whole(files.path / "whole", options);
    losses(whole, 8);
    {
      ImageRun first(files.path / "broken", options);
      losses(first, 3);
      const std::atomic<bool> stop{true};
      CHECK_THROWS_AS(first.trainer.run(stop), Interrupted);
    }
    ImageRun second(files.path / "broken", options, RunMode::kResume);
    losses(second, 4);
    check_same_bits(whole, second);
    CHECK_THROWS_AS(ImageRun(files.path / "broken", with(options, {"optimizer.adamw.state=fp32"}),
                             RunMode::kResume),
                    FileError);
  }
}

TEST_CASE("int8 state: what is frozen in a step keeps weight, codes, scales and counter") {
  const TextFolder files("int8_frozen");
  ImageRun run(files.path / "run", with(kInt8, {"freeze.schedule=ils", "freeze.fraction=0.8"}));
  const SlotTable& slots = run.experiment.slots();
  auto before = run.slots();
  int frozen = 0;
  for (int step = 0; step < 6; ++step) {
    run.trainer.step();
    const auto after = run.slots();
    for (const SlotId unit : run.experiment.passes().schedule()->units) {
      for (const char* kind : {"codes", "scales", "step", ""}) {
        const SlotId of =
            *kind == 0 ? unit : slots.find(fmt::format("optimizer.{}.{}", kind, slots[unit].name));
        if (of != kNoSlot) {
          INFO(slots[of].name);
          CHECK(same_bits(before[static_cast<size_t>(of)], after[static_cast<size_t>(of)]) ==
                !slots[unit].trainable);
          frozen += slots[unit].trainable ? 0 : 1;
        }
      }
    }
    before = after;
  }
  CHECK(frozen > 100);
}

TEST_CASE("CUDA: int8 state and legacy momentum, twice the same bits and as on the CPU") {
  if (!cuda_available()) {
    MESSAGE("no CUDA device: not run");
    return;
  }
  const TextFolder files("cuda_int8");
  const std::atomic<bool> go{false};
  for (const std::string compute : {"fp32", "bf16"}) {
    CAPTURE(compute);
    const Overrides options =
        with(kInt8, {"train.compute=" + compute, "freeze.schedule=ils", "freeze.fraction=0.9",
                     "freeze.legacy_momentum=true", "train.steps=30"});
    ImageRun a(files.path / "a", options, RunMode::kOverwrite, cuda_memory(0));
    ImageRun b(files.path / "b", options, RunMode::kOverwrite, cuda_memory(0));
    losses(a, 30);
    const int64_t predicted = b.experiment.memory().predicted_peak_bytes;
    b.trainer.run(go);  // a step ahead
    check_same_bits(a, b);
    CHECK(b.trainer.executor().memory().peak_bytes() == predicted);
  }
  const Overrides calm = with(kInt8, {"train.batch_size=32", "optimizer.lr=1e-3"});
  ImageRun cpu(files.path / "cpu", calm);
  ImageRun gpu(files.path / "gpu", calm, RunMode::kOverwrite, cuda_memory(0));
  const auto a = losses(cpu, 20);
  const auto b = losses(gpu, 20);
  for (size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(b[i] == doctest::Approx(a[i]).epsilon(2e-3));
  }
}
