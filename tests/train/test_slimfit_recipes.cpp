// The recipes of configs/slimfit: what they train in each step (SlimFit, arXiv 2305.18513; counts
// of its code), without planning a graph.
#include <doctest/doctest.h>

#include <array>

#include <nlohmann/json.hpp>

#include "compress/passes.h"
#include "nn/model_kinds.h"
#include "optim/schedule.h"
#include "train/options.h"
#include "train/task.h"

using namespace lithe;  // NOLINT

namespace {

struct Task {
  const char* recipe;
  size_t units;
  int64_t active;
};

recipe::Recipe load(const std::string& name, const std::vector<std::string>& overrides = {}) {
  return load_train_recipe(fmt::format("{}/configs/slimfit/{}.yaml", LITHE_SOURCE_DIR, name),
                           overrides);
}

}  // namespace

TEST_CASE("SlimFit's recipes train as many units as its authors do") {
  constexpr Task kTasks[] = {
      {"cola", 102, 11},   {"mnli", 102, 21},   {"mrpc", 102, 11},     {"qnli", 102, 6},
      {"qqp", 102, 21},    {"rte", 102, 11},    {"sst2", 102, 6},      {"stsb", 101, 16},
      {"squad2", 101, 21}, {"cifar10", 99, 10}, {"cifar100", 100, 25}, {"imagenet", 100, 5},
  };
  for (const Task& task : kTasks) {
    CAPTURE(task.recipe);
    const recipe::Recipe recipe = load(task.recipe);
    CHECK(recipe.string("codec.preset") == "slimfit");
    SlotTable slots;
    const auto model = nn::make_model(slots, experiment_config(recipe));
    const PassManager passes = make_passes(recipe);
    (void)passes.apply_model({.model = model.get(), .slots = &slots, .seed = 1});
    REQUIRE(passes.schedule() != nullptr);
    CHECK(passes.schedule()->units.size() == task.units);
    CHECK(passes.schedule()->active == task.active);
  }
}

TEST_CASE("SlimFit's recipes have their authors' learning rates") {
  // Section 5.1 of the specification, as shares of the peak over N updates.
  constexpr int64_t kN = 804;
  constexpr double n = kN;
  const auto check = [&](const char* name, double lr, std::array<double, 5> wanted) {
    CAPTURE(name);
    const recipe::Recipe recipe = load(name);
    CHECK(recipe.number("optimizer.lr") == lr);
    const Schedule schedule = make_schedule(recipe.section("schedule"), kN);
    CHECK(schedule.steps == kN);
    const std::array<int64_t, 5> at = {0, 1, 2, kN - 2, kN - 1};
    for (size_t i = 0; i < at.size(); ++i) {
      CAPTURE(at[i]);
      CHECK(schedule.factor(at[i]) == doctest::Approx(wanted[i]).epsilon(1e-12));
    }
  };
  const std::array s1 = {1.0, n / (n + 1), (n - 1) / (n + 1), 3 / (n + 1), 2 / (n + 1)};
  const std::array s2 = {1.0, (n - 1) / n, (n - 2) / n, 2 / n, 1 / n};
  const std::array s2_from_0 = {0.0, (n - 1) / (n - 0.1), (n - 2) / (n - 0.1), 2 / (n - 0.1),
                                1 / (n - 0.1)};
  const std::array s3 = {n / (n + 1), (n - 1) / (n + 1), (n - 2) / (n + 1), 2 / (n + 1),
                         1 / (n + 1)};
  const double m = n - 3;  // SQuAD's whole batches
  check("cola", 8e-5, s2_from_0);
  check("mnli", 4e-5, s1);
  check("mrpc", 1.25e-4, s1);
  check("qnli", 5e-5, s1);
  check("qqp", 5e-5, s1);
  check("rte", 1.2e-4, s1);
  check("sst2", 8e-5, s1);
  check("stsb", 8e-5, s2);
  check("squad2", 1.8e-4, {0.0, (m - 1) / (m - 0.1), (m - 2) / (m - 0.1), 0.0, 0.0});
  check("cifar10", 7.5e-5, s3);
  check("cifar100", 5.5e-5, s3);
  check("imagenet", 5e-5, s3);
}

TEST_CASE("one key chooses how SlimFit's recipes keep activations") {
  CHECK_FALSE(load("sst2", {"codecs=none"}).enabled("codec"));
  const recipe::Recipe original = load("sst2", {"codecs=slimfit_original"});
  CHECK(original.string("codec.preset") == "slimfit_original");
  CHECK(original.string("model.attention") == "unfused");
  CHECK(load("sst2", {"codecs=slimfit_original", "model.attention=fused"})
            .string("model.attention") == "fused");
  CHECK_THROWS_AS(load("sst2", {"codec.preset=slimfit_original"}), UsageError);
  // Its own output is a recipe again.
  CHECK_NOTHROW((void)recipe::Recipe::parse(original.resolved(), "resolved", train_options()));
}

TEST_CASE("the baselines are recipes") {
  for (const char* name : {"full", "static_freezing", "checkpointing", "bias_only"}) {
    CAPTURE(name);
    const recipe::Recipe recipe = load(fmt::format("baselines/{}", name));
    CHECK_FALSE(recipe.enabled("codec"));
    CHECK(recipe.string("data.task") == "sst2");
  }
}
