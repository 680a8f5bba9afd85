// Scheduled freezing in whole runs: what is trained in a step and what stays bit-equal, memory that
// does not depend on the choice, scores, resume.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>

#include "compress/passes.h"
#include "train/image_run.h"
#include "train/run_checks.h"
#include "train/text_run.h"
#include "train/tiny_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

using Overrides = std::vector<std::string>;

template <typename Run>
const std::vector<SlotId>& units(const Run& run) {
  return run.experiment.passes().schedule()->units;
}

template <typename Run>
std::set<SlotId> trained(Run& run) {
  std::set<SlotId> out;
  for (const SlotId unit : units(run)) {
    if (run.experiment.slots()[unit].trainable) {
      out.insert(unit);
    }
  }
  return out;
}

template <typename Run>
std::vector<double> scores(const Run& run) {
  const nlohmann::json state = run.experiment.passes().state();
  std::vector<double> out;
  for (const nlohmann::json& bits : state.at("freeze").at("score_bits")) {
    out.push_back(std::bit_cast<double>(bits.get<uint64_t>()));
  }
  return out;
}

template <typename Run>
void check_same_run(Run& a, Run& b) {
  check_same_bits(a, b);
  CHECK(a.experiment.passes().state() == b.experiment.passes().state());
}

// Of a parameter: itself, its moments and its counter.
std::vector<SlotId> with_state(const SlotTable& slots, SlotId parameter) {
  std::vector<SlotId> out = {parameter};
  for (const char* kind : {"m", "v", "step"}) {
    out.push_back(slots.find(fmt::format("optimizer.{}.{}", kind, slots[parameter].name)));
    REQUIRE(out.back() != kNoSlot);
  }
  return out;
}

double mean(const std::vector<double>& values, size_t from, size_t count) {
  return std::accumulate(values.begin() + static_cast<std::ptrdiff_t>(from),
                         values.begin() + static_cast<std::ptrdiff_t>(from + count), 0.0) /
         static_cast<double>(count);
}

const Overrides kIls = {"freeze.schedule=ils", "freeze.fraction=0.9"};
const Overrides kLong = {"train.steps=400"};

}  // namespace

TEST_CASE("a step trains k units, all biases and shifts, and leaves frozen units bit-equal") {
  const TextFolder files("scheduled_strict");
  ImageRun run(files.path / "run", with(kLong, {"freeze.schedule=ils", "freeze.fraction=0.8",
                                                "freeze.patterns=*layer.1.output*"}));
  // 28 units of the model, of which block 1's output layer is frozen for good.
  CHECK(units(run).size() == 27);
  const SlotTable& slots = run.experiment.slots();
  std::set<SlotId> ever;
  auto before = run.slots();
  for (int step = 0; step < 12; ++step) {
    CAPTURE(step);
    run.trainer.step();
    const auto after = run.slots();
    const std::set<SlotId> active = trained(run);
    CHECK(active.size() == 27 - 21);
    ever.insert(active.begin(), active.end());
    for (SlotId s = 0; s < slots.size(); ++s) {
      if (slots[s].kind != SlotKind::parameter) {
        continue;
      }
      const bool for_good = slots[s].name.find("layer.1.output") != std::string::npos;
      const bool unit = std::find(units(run).begin(), units(run).end(), s) != units(run).end();
      const bool trains = unit ? active.contains(s) : !for_good;
      CHECK((for_good && unit) == false);
      INFO(slots[s].name);
      if (for_good) {
        CHECK(same_bits(before[static_cast<size_t>(s)], after[static_cast<size_t>(s)]));
        continue;
      }
      for (const SlotId of : with_state(slots, s)) {
        INFO(slots[of].name);
        // The key's bias has no gradient worth the name, but its state moves.
        CHECK((same_bits(before[static_cast<size_t>(of)], after[static_cast<size_t>(of)])) ==
              !trains);
      }
    }
    before = after;
  }
  CHECK(ever.size() == 27);
  // Each counter is the number of steps in which its unit was trained.
  const nlohmann::json state = run.experiment.passes().state().at("freeze");
  for (size_t u = 0; u < units(run).size(); ++u) {
    const SlotId counter = with_state(slots, units(run)[u]).back();
    CHECK(before[static_cast<size_t>(counter)].as<int64_t>()[0] ==
          state.at("times_trained")[u].get<int64_t>());
  }
}

TEST_CASE("scores are the change of the weights, computed again from the weights") {
  const TextFolder files("scheduled_scores");
  for (const std::string metric : {"guarded", "relative", "norm_ratio"}) {
    CAPTURE(metric);
    ImageRun run(files.path / metric,
                 with(kLong, with(kIls, {"freeze.metric=" + metric, "train.clip_norm=1"})));
    // The choice of a step takes in what the step before it did, so look one step later.
    auto before = run.slots();
    run.trainer.step();
    const auto after = run.slots();
    const std::set<SlotId> active = trained(run);
    run.trainer.step();
    const std::vector<double> now = scores(run);
    for (size_t u = 0; u < units(run).size(); ++u) {
      const SlotId slot = units(run)[u];
      INFO(run.experiment.slots()[slot].name);
      if (!active.contains(slot)) {
        CHECK(now[u] > 1e3);  // what it started with
        continue;
      }
      const auto w = before[static_cast<size_t>(slot)].as<float>();
      const auto v = after[static_cast<size_t>(slot)].as<float>();
      double sum = 0;
      double size = 0;
      for (size_t i = 0; i < w.size(); ++i) {
        const double moved = std::abs(static_cast<double>(v[i]) - static_cast<double>(w[i]));
        const double weight = std::abs(static_cast<double>(w[i]));
        size += weight;
        sum += metric == "guarded"    ? moved / std::max(weight, 1e-3)
               : metric == "relative" ? moved / weight
                                      : moved;
      }
      const auto n = static_cast<double>(w.size());
      const double wanted = metric == "norm_ratio" ? sum / std::max(size, 1e-3 * n) : sum / n;
      // The kernel sees the change before it is rounded to fp32.
      CHECK(now[u] == doctest::Approx(wanted).epsilon(1e-3));
    }
  }
}

TEST_CASE("fraction 0 gives the bits of a run without a schedule") {
  const TextFolder files("scheduled_none");
  const Overrides dropout = with(kLong, {"model.vit.hidden_dropout_prob=0.1"});
  ImageRun plain(files.path / "plain", dropout);
  ImageRun scheduled(files.path / "scheduled",
                     with(dropout, {"freeze.schedule=ils", "freeze.fraction=0"}));
  losses(plain, 6);
  losses(scheduled, 6);
  const auto x = plain.slots();
  const auto y = scheduled.slots();
  REQUIRE(x.size() == y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK(same_bits(x[i], y[i]));
  }
}

TEST_CASE("the loss falls with nine of ten units frozen in each step, on ViT and BERT") {
  const TextFolder files("scheduled_learns");
  for (const std::string kind : {"ils", "random", "round_robin", "progressive"}) {
    CAPTURE(kind);
    ImageRun run(files.path / "run",
                 {"train.steps=250", "freeze.schedule=" + kind, "freeze.fraction=0.9"});
    const std::vector<double> loss = losses(run, 250);
    CAPTURE(mean(loss, 0, 10));
    CAPTURE(mean(loss, 240, 10));
    CHECK(mean(loss, 240, 10) < 0.8 * mean(loss, 0, 10));
  }
  for (const std::string lag : {"0", "1"}) {
    TextRun text(files, "text" + lag,
                 with(kIls, {"train.epochs=12", "optimizer.lr=1e-2", "freeze.lag=" + lag}));
    const int64_t predicted = text.experiment.memory().predicted_peak_bytes;
    const RunSummary summary = text.run();
    CAPTURE(value_of(summary.metrics, "accuracy"));
    CHECK(value_of(summary.metrics, "accuracy") > 0.9);
    CHECK(text.trainer.measured_peak_bytes() <= predicted);
    CHECK(text.trainer.executor().memory().peak_bytes() == predicted);
  }
}

TEST_CASE("no choice needs more than the planned peak, and the largest one needs all of it") {
  const TextFolder files("scheduled_memory");
  const std::vector<Overrides> variants = {
      {},
      {"train.clip_norm=0.5"},
      {"train.accumulate=2"},
      {"recompute.blocks=0-1"},
      {"model.attention=unfused"},
      {"model.vit.hidden_dropout_prob=0.1", "train.batch_size=1"},
      {"train.batch_size=48", "optimizer.name=sgd"},
  };
  for (const char* fraction : {"0.7", "0.9", "0.95"}) {
    for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
      for (const Overrides& variant : variants) {
        for (const bool text : {false, true}) {
          Overrides options = {"freeze.schedule=ils", fmt::format("freeze.fraction={}", fraction)};
          if (text && variant.size() == 2 && variant[0].starts_with("model.vit")) {
            continue;
          }
          options = with(options, variant);
          CAPTURE(fmt::format("{} {} {}", text ? "text" : "images", fmt::join(options, " "),
                              device == DeviceKind::cpu ? "cpu" : "cuda"));
          const recipe::Recipe recipe =
              text ? recipe::Recipe::parse(files.recipe(), "text.yaml", train_options(), options)
                   : tiny_recipe(options);
          Experiment experiment(recipe, device);
          int64_t most = 0;
          for (const StepGraph* step : experiment.steps()) {
            most = std::max(most, step->plan.arena_bytes);
          }
          const UnitSchedule& schedule = *experiment.passes().schedule();
          const auto count = static_cast<int64_t>(schedule.units.size());
          int64_t largest = 0;
          for (uint64_t trial = 0; trial < 100; ++trial) {
            std::vector<SlotId> order = schedule.units;
            for (const SlotId unit : order) {
              experiment.slots()[unit].trainable = false;
            }
            for (int64_t i = 0; i < schedule.active; ++i) {
              const uint32_t draw = philox(17, trial, static_cast<uint64_t>(i)).word[0];
              std::swap(order[static_cast<size_t>(i)],
                        order[static_cast<size_t>(i + draw % static_cast<uint32_t>(count - i))]);
              experiment.slots()[order[static_cast<size_t>(i)]].trainable = true;
            }
            largest = std::max(largest, experiment.rebuild_update_step().plan.arena_bytes);
          }
          CHECK(largest <= most);
        }
      }
    }
  }
}

TEST_CASE("the arena of a run is that of the largest choice, and no step touches more") {
  const TextFolder files("scheduled_arena");
  constexpr uint8_t kMark = 0xa5;
  for (const Overrides& more : {Overrides{}, Overrides{"train.accumulate=2"}}) {
    ImageRun run(files.path / "run", with(kLong, with(kIls, more)));
    const MemoryReport report = run.experiment.memory();
    Executor& executor = run.trainer.executor();
    CHECK(executor.memory().peak_bytes() == report.predicted_peak_bytes);
    executor.mark_arena(kMark);
    losses(run, 40);
    CHECK(executor.touched_arena_bytes(kMark) <= report.arena_bytes);
    CHECK(executor.memory().peak_bytes() == report.predicted_peak_bytes);
    CHECK(executor.arena_bytes() == report.arena_bytes);

    // The largest choice itself, which the planned step trains, touches nearly all.
    TinyRun largest(with(kLong, with(kIls, more)));
    largest.executor.mark_arena(kMark);
    largest.step(0);
    const MemoryReport planned = largest.experiment.memory();
    const int64_t unused = planned.arena_bytes - largest.executor.touched_arena_bytes(kMark);
    CAPTURE(unused);
    CHECK(unused >= 0);
    CHECK(unused < planned.predicted_peak_bytes / 100);
    CHECK(std::accumulate(planned.peak_by_class.begin(), planned.peak_by_class.end(), int64_t{0}) ==
          planned.predicted_peak_bytes);
  }
}

TEST_CASE("resume is bit-equal with a schedule, scores and all") {
  const TextFolder files("scheduled_resume");
  const std::vector<Overrides> variants = {
      {},
      {"freeze.lag=1"},
      {"train.accumulate=2", "freeze.ageing=0.01", "freeze.metric=relative"},
      {"freeze.schedule=random"},
      {"freeze.schedule=progressive"},
  };
  for (const Overrides& variant : variants) {
    CAPTURE(fmt::format("{}", fmt::join(variant, " ")));
    const Overrides options =
        with(with(kIls, {"train.steps=24", "model.vit.hidden_dropout_prob=0.1",
                         "schedule.name=linear", "schedule.warmup_steps=3"}),
             variant);
    ImageRun whole(files.path / "whole", options);
    losses(whole, 24);
    {
      ImageRun first(files.path / "broken", options);
      losses(first, 8);
      const std::atomic<bool> stop{true};
      CHECK_THROWS_AS(first.trainer.run(stop), Interrupted);
    }
    ImageRun second(files.path / "broken", options, RunMode::kResume);
    CHECK(second.trainer.steps_done() == 9);
    losses(second, 15);
    check_same_run(whole, second);
    CHECK_THROWS_AS(
        ImageRun(files.path / "broken", with(options, {"freeze.fraction=0.5"}), RunMode::kResume),
        FileError);
    CHECK_THROWS_AS(ImageRun(files.path / "broken",
                             with(options, {"freeze.always=classifier.weight"}), RunMode::kResume),
                    FileError);
  }
}

TEST_CASE("a warm-up from 0 does not starve the first units, unless asked to") {
  const TextFolder files("scheduled_starve");
  for (const bool skips : {true, false}) {
    ImageRun run(files.path / "run",
                 {"train.steps=120", "schedule.name=linear", "schedule.warmup_steps=5",
                  "freeze.schedule=ils", "freeze.fraction=0.8",
                  fmt::format("freeze.skip_lr_zero={}", skips)});
    run.trainer.step();
    const std::set<SlotId> first = trained(run);
    losses(run, 119);
    const nlohmann::json times = run.experiment.passes().state().at("freeze").at("times_trained");
    for (size_t u = 0; u < units(run).size(); ++u) {
      if (first.contains(units(run)[u])) {
        INFO(run.experiment.slots()[units(run)[u]].name);
        CHECK((times[u].get<int64_t>() == 1) == !skips);
      }
    }
  }
}

TEST_CASE("a schedule tells its units and savings before it acts, and can be undone") {
  const recipe::Recipe recipe = tiny_recipe(with(kIls, {"freeze.layers=0"}));
  const recipe::Recipe plain = tiny_recipe();
  Experiment experiment(plain, DeviceKind::cpu);
  SlotTable& slots = experiment.slots();
  const PassManager passes = make_passes(recipe);
  Pass& freeze = *passes.passes()[0];
  const PassTarget target{&experiment.model(), &slots, nullptr};
  const auto count = [](const std::vector<Site>& sites, const std::string& kind) {
    return std::count_if(sites.begin(), sites.end(),
                         [&](const Site& s) { return s.kind == kind && s.refused.empty(); });
  };
  CHECK(count(freeze.match(target), "parameter") == 16);
  CHECK(count(freeze.match(target), "unit") == 20);
  CHECK(passes.schedule() == nullptr);
  CHECK(
      freeze.apply(target).what.starts_with("ils: 18 of 20 units frozen in each step, 2 trained"));
  // Never more than is saved where the two largest units are trained.
  int64_t saved = 0;
  std::vector<int64_t> sizes;
  for (const Site& site : freeze.match(target)) {
    (site.kind == "unit" ? sizes.emplace_back(0) : saved) += byte_size(DType::f32, site.shape);
  }
  std::sort(sizes.begin(), sizes.end());
  saved += std::accumulate(sizes.begin(), sizes.end() - 2, int64_t{0});
  CHECK(freeze.estimate(target).bytes[static_cast<size_t>(MemoryClass::gradients)] == -saved);
  CHECK(passes.schedule()->units.size() == 20);
  CHECK(passes.schedule()->active == 2);
  CHECK(passes.on(PassEvent::step_begin, 0));
  CHECK(freeze.invert(target).empty());
  CHECK(passes.schedule() == nullptr);
  for (SlotId s = 0; s < slots.size(); ++s) {
    CHECK((slots[s].trainable || slots[s].kind != SlotKind::parameter));
  }
}

TEST_CASE("what a schedule cannot do is refused") {
  const auto message = [](const Overrides& overrides) -> std::string {
    try {
      const TinyRun run(overrides);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message({"freeze.schedule=ils", "freeze.units=nothing"}).find("the nearest is") !=
        std::string::npos);
  CHECK(message({"freeze.schedule=ils", "freeze.layers=all",
                 "freeze.patterns=[\"*embeddings*\", \"classifier.*\"]"})
            .find("no unit is left") != std::string::npos);
  CHECK(message({"freeze.schedule=ils", "freeze.fraction=1", "freeze.patterns=[\"*.bias\"]",
                 "freeze.units=[\"auto\", \"*norm*\"]"})
            .find("nothing would be trained") != std::string::npos);
  CHECK(message({"freeze.schedule=ils", "freeze.fraction=1.5"}).find("fraction") !=
        std::string::npos);
  CHECK(message({"freeze.schedule=ils", "freeze.lag=2"}).find("lag") != std::string::npos);
}

TEST_CASE("CUDA: scheduled runs are bit-equal to themselves and learn as on the CPU") {
  if (!cuda_available()) {
    MESSAGE("no CUDA device: not run");
    return;
  }
  const TextFolder files("cuda_scheduled");
  const std::atomic<bool> go{false};
  for (const std::string lag : {"0", "1"}) {
    for (const std::string compute : {"fp32", "bf16"}) {
      CAPTURE(lag);
      CAPTURE(compute);
      const Overrides options =
          with(kIls, {"train.steps=30", "freeze.lag=" + lag, "train.compute=" + compute,
                      "model.vit.hidden_dropout_prob=0.1"});
      ImageRun a(files.path / "a", options, RunMode::kOverwrite, cuda_memory(0));
      ImageRun b(files.path / "b", options, RunMode::kOverwrite, cuda_memory(0));
      losses(a, 30);
      const int64_t predicted = b.experiment.memory().predicted_peak_bytes;
      b.trainer.run(go);  // a step ahead
      check_same_run(a, b);
      CHECK(b.trainer.measured_peak_bytes() <= predicted);
      CHECK(b.trainer.executor().memory().peak_bytes() == predicted);
    }
  }
  // Exploration does not depend on measures, so the choices are those of the CPU.
  ImageRun cpu(files.path / "cpu", with(kLong, kIls));
  ImageRun gpu(files.path / "gpu", with(kLong, kIls), RunMode::kOverwrite, cuda_memory(0));
  for (int step = 0; step < 9; ++step) {
    CHECK(gpu.trainer.step() == doctest::Approx(cpu.trainer.step()).epsilon(1e-4));
    CHECK(trained(cpu) == trained(gpu));
  }

  const Overrides text = with(kIls, {"eval.every_steps=-1", "train.accumulate=2", "freeze.lag=1"});
  TextRun whole(files, "whole", text, RunMode::kNew, cuda_memory(0));
  losses(whole, 15);
  {
    TextRun first(files, "broken", text, RunMode::kNew, cuda_memory(0));
    losses(first, 4);
    const std::atomic<bool> stop{true};
    CHECK_THROWS_AS(first.trainer.run(stop), Interrupted);
  }
  TextRun second(files, "broken", text, RunMode::kResume, cuda_memory(0));
  losses(second, 10);
  check_same_run(whole, second);
}
