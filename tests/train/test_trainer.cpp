// The loop: accumulation, clipping, resume, evaluation, failure.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "io/safetensors.h"
#include "train/checkpoint.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace fs = std::filesystem;

namespace {

// A run folder that is removed at the end.
struct Folder {
  explicit Folder(const std::string& name)
      : path(fs::temp_directory_path() / ("lithe_test_" + name)) {
    fs::remove_all(path);
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

struct Run {
  Run(const fs::path& path, RunMode mode, const std::vector<std::string>& overrides)
      : recipe(tiny_recipe(overrides)),
        experiment(recipe, DeviceKind::cpu),
        folder(path, mode, false),
        trainer(experiment, folder, cpu_memory(), open_training_data(recipe, experiment.model())) {
    trainer.start(StartWeights(experiment));
  }
  recipe::Recipe recipe;
  Experiment experiment;
  RunFolder folder;
  Trainer trainer;
};

const std::vector<std::string> kNoisy = {"train.steps=24",
                                         "model.vit.hidden_dropout_prob=0.1",
                                         "data.flip=true",
                                         "checkpoint.every_steps=7",
                                         "schedule.name=linear",
                                         "schedule.warmup_steps=3",
                                         "freeze.layers=0",
                                         "recompute.blocks=1-2",
                                         "model.vit.attention_probs_dropout_prob=0.1"};

}  // namespace

TEST_CASE("resume is bit-equal, with dropout, in the middle of an epoch, with both passes") {
  const std::atomic<bool> go{false};
  const Folder straight("straight");
  Run whole(straight.path, RunMode::kNew, kNoisy);
  whole.trainer.run(go);
  const auto wanted = read_slots(whole.trainer.executor(), whole.experiment);

  const Folder broken("broken");
  {
    Run first(broken.path, RunMode::kNew, kNoisy);
    std::atomic<bool> stop{true};  // stops after one step, as a signal would
    CHECK_THROWS_AS(first.trainer.run(stop), Interrupted);
    CHECK(first.trainer.steps_done() == 1);
  }
  {
    Run second(broken.path, RunMode::kResume, kNoisy);
    second.trainer.resume();
    CHECK(second.trainer.steps_done() == 1);
    for (int i = 0; i < 12; ++i) {
      second.trainer.step();
    }
  }  // lost without a checkpoint: the third goes on from step 1
  Run third(broken.path, RunMode::kResume, kNoisy);
  third.trainer.resume();
  CHECK(third.trainer.steps_done() == 1);
  third.trainer.run(go);
  const auto got = read_slots(third.trainer.executor(), third.experiment);
  REQUIRE(got.size() == wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    INFO(third.experiment.slots()[static_cast<SlotId>(i)].name);
    CHECK(same_bits(got[i], wanted[i]));
  }
}

TEST_CASE("two runs are bit-equal") {
  const std::atomic<bool> go{false};
  const Folder a("twice_a");
  const Folder b("twice_b");
  Run one(a.path, RunMode::kNew, kNoisy);
  Run two(b.path, RunMode::kNew, kNoisy);
  one.trainer.run(go);
  two.trainer.run(go);
  const auto x = read_slots(one.trainer.executor(), one.experiment);
  const auto y = read_slots(two.trainer.executor(), two.experiment);
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK(same_bits(x[i], y[i]));
  }
}

TEST_CASE("accumulating micro-batches is one larger batch") {
  const Folder a("accumulate_a");
  const Folder b("accumulate_b");
  const std::vector<std::string> common = {"train.steps=3", "optimizer.name=sgd",
                                           "optimizer.lr=0.1", "optimizer.sgd.momentum=0.9"};
  auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), common.begin(), common.end());
    return more;
  };
  Run big(a.path, RunMode::kNew, with({"train.batch_size=12"}));
  Run small(b.path, RunMode::kNew, with({"train.batch_size=4", "train.accumulate=3"}));
  for (int i = 0; i < 3; ++i) {
    const double loss_a = big.trainer.step();
    const double loss_b = small.trainer.step();
    CHECK(loss_a == doctest::Approx(loss_b).epsilon(1e-5));
  }
  for (SlotId s = 0; s < big.experiment.slots().size(); ++s) {
    const Slot& slot = big.experiment.slots()[s];
    if (slot.kind != SlotKind::parameter) {
      continue;
    }
    const Tensor x = big.trainer.executor().read_slot(s);
    const Tensor y = small.trainer.executor().read_slot(small.experiment.slots().find(slot.name));
    double difference = 0;
    double size = 0;
    for (size_t i = 0; i < x.as<float>().size(); ++i) {
      difference += std::pow(static_cast<double>(x.as<float>()[i]) - y.as<float>()[i], 2);
      size += std::pow(static_cast<double>(x.as<float>()[i]), 2);
    }
    INFO(slot.name);
    CHECK(std::sqrt(difference) <= 1e-4 * std::sqrt(size) + 1e-6);
  }
}

TEST_CASE("clipping by global norm bounds the step of plain SGD") {
  const Folder a("clip");
  Run run(a.path, RunMode::kNew,
          {"train.clip_norm=0.01", "optimizer.name=sgd", "optimizer.lr=1", "train.steps=1",
           "optimizer.sgd.momentum=0", "optimizer.weight_decay=0"});
  const auto before = read_slots(run.trainer.executor(), run.experiment);
  run.trainer.step();
  const auto after = read_slots(run.trainer.executor(), run.experiment);
  double moved = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    for (size_t j = 0; j < before[i].as<float>().size(); ++j) {
      moved += std::pow(static_cast<double>(after[i].as<float>()[j]) - before[i].as<float>()[j], 2);
    }
  }
  CHECK(std::sqrt(moved) == doctest::Approx(0.01).epsilon(1e-3));
}

TEST_CASE("a run leaves the whole folder, and learns") {
  const std::atomic<bool> go{false};
  const Folder a("folder");
  Run run(
      a.path, RunMode::kNew,
      {"train.steps=120", "eval.every_steps=40", "data.synthetic_size=48", "checkpoint.final=true",
       "checkpoint.every_steps=50", "checkpoint.keep=2", "train.batch_size=12"});
  const double first = run.trainer.evaluate().loss;
  RunSummary summary = run.trainer.run(go);
  summary.name = "tiny";
  const MemoryReport report = run.experiment.memory();
  run.folder.write_recipe(run.recipe.resolved());
  run.folder.write_memory(report);
  run.folder.write_summary(summary, &report);
  run.folder.write_report();
  for (const char* file :
       {"recipe.yaml", "log.txt", "metrics.jsonl", "summary.json", "memory.json", "report.html",
        "model/model.safetensors", "model/config.json", "checkpoints/step-120/manifest.json",
        "checkpoints/step-100/manifest.json"}) {
    INFO(file);
    CHECK(fs::exists(a.path / file));
  }
  CHECK_FALSE(fs::exists(a.path / "checkpoints/step-50"));  // keep: 2
  CHECK(run.trainer.measured_peak_bytes() <= report.predicted_peak_bytes);
  CHECK(run.trainer.measured_peak_bytes() > report.predicted_peak_bytes * 99 / 100);
  // The training loss falls: the data is random, so this is memorising.
  std::ifstream metrics(a.path / "metrics.jsonl");
  std::string line;
  double last = 1e9;
  int lines = 0;
  while (std::getline(metrics, line)) {
    const auto json = nlohmann::json::parse(line);
    last = json.contains("loss") ? json.at("loss").get<double>() : last;
    ++lines;
  }
  CHECK(lines == 120 + 3);
  CHECK(last < first / 2);
}

TEST_CASE("a loss that is not finite ends the run with its own code") {
  const std::atomic<bool> go{false};
  const Folder a("nan");
  Run run(a.path, RunMode::kNew, {"optimizer.name=sgd", "optimizer.lr=1e30", "train.steps=20"});
  try {
    run.trainer.run(go);
    FAIL("no error");
  } catch (const NumericalError& e) {
    CHECK(e.code() == ExitCode::kNumerical);
  }
}

TEST_CASE("damaged checkpoints are refused and older ones stay") {
  const std::atomic<bool> go{false};
  const Folder a("damaged");
  Run run(a.path, RunMode::kNew,
          {"train.steps=4", "checkpoint.every_steps=2", "checkpoint.final=true"});
  run.trainer.run(go);
  const auto newest = newest_checkpoint(a.path / "checkpoints");
  REQUIRE(newest.has_value());
  CHECK(newest->filename() == "step-4");
  {
    std::fstream file(*newest / "slots.safetensors",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-3, std::ios::end);
    file.put('\x7f');
  }
  const auto ignore = [](SlotId, const Tensor&) {};
  CHECK_THROWS_AS(load_checkpoint(*newest, run.experiment.slots(), ignore), FileError);
  fs::remove(*newest / "manifest.json");  // a folder without its manifest does not count
  CHECK(newest_checkpoint(a.path / "checkpoints")->filename() == "step-2");
}

TEST_CASE("what does not fit is refused before allocating") {
  const Folder a("too_large");
  recipe::Recipe recipe = tiny_recipe({"train.batch_size=1000000"});
  Experiment experiment(recipe, DeviceKind::cpu);
  RunFolder folder(a.path, RunMode::kNew, false);
  try {
    const Trainer trainer(experiment, folder, cpu_memory(),
                          open_training_data(recipe, experiment.model()));
    FAIL("no error");
  } catch (const MemoryError& e) {
    CHECK(e.code() == ExitCode::kMemory);
    const std::string text = e.what();
    INFO(text);
    CHECK(text.find("the largest values at the peak are") != std::string::npos);
    // 1,000,000 halved until it fits, and the micro-batches that make up for it.
    CHECK(text.find("train.batch_size=") != std::string::npos);
    CHECK(text.find("train.accumulate=") != std::string::npos);
  }
}

TEST_CASE("pretrained weights are loaded, and a head of another size is drawn anew on request") {
  const std::atomic<bool> go{false};
  const Folder a("pretrained_a");
  Run first(a.path, RunMode::kNew, {"train.steps=2", "checkpoint.final=true"});
  first.trainer.run(go);
  const std::vector<std::string> load = {"model.path=" + (a.path / "model").string(),
                                         "model.weights=pretrained"};
  const Folder b("pretrained_b");
  Run same(b.path, RunMode::kNew, load);
  for (SlotId s = 0; s < same.experiment.slots().size(); ++s) {
    if (same.experiment.slots()[s].kind == SlotKind::parameter) {
      CHECK(same_bits(same.trainer.executor().read_slot(s), first.trainer.executor().read_slot(s)));
    }
  }
  std::vector<std::string> other_head = load;
  other_head.emplace_back("model.vit.num_labels=7");
  const Folder c("pretrained_c");
  try {
    const Run refused(c.path, RunMode::kNew, other_head);
    FAIL("no error");
  } catch (const FileError& e) {
    CHECK(std::string(e.what()).find("model.reinit") != std::string::npos);
  }
  other_head.emplace_back("model.reinit=classifier.*");
  const Folder d("pretrained_d");
  Run headless(d.path, RunMode::kNew, other_head);
  const SlotTable& slots = headless.experiment.slots();
  const auto read = [&](Run& run, const std::string& name) {
    return run.trainer.executor().read_slot(run.experiment.slots().find(name));
  };
  CHECK(slots[slots.find("classifier.weight")].shape == Shape{7, 32});
  CHECK(same_bits(read(headless, "vit.layernorm.weight"), read(first, "vit.layernorm.weight")));
}
