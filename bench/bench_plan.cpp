// Time to build, rewrite and plan a full training step of ViT-B/16 on one core, by stage. Prints
// JSON. Usage: bench_plan [--recipe FILE] [--repeats N] [--out FILE] [key.path=value ...].
#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "train/experiment.h"
#include "train/options.h"

namespace {

using namespace lithe;  // NOLINT: a program, not a header

double median_ms(int repeats, const std::function<void()>& body) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times[static_cast<size_t>(repeats / 2)];
}

}  // namespace

int main(int argc, char** argv) {
  std::string path = "configs/bench/vit_b16.yaml";
  int repeats = 50;
  std::string out_file;
  std::vector<std::string> overrides;
  CLI::App app{"Times building, rewriting and planning a training step."};
  app.add_option("--recipe", path, "the recipe");
  app.add_option("--repeats", repeats, "timed repeats")->check(CLI::PositiveNumber);
  app.add_option("--out", out_file, "also write the JSON here");
  app.add_option("overrides", overrides, "key.path=value");
  CLI11_PARSE(app, argc, argv);
  const recipe::Recipe recipe = load_train_recipe(path, overrides);
  Experiment experiment(recipe, DeviceKind::cpu);
  const double step = median_ms(repeats, [&] { (void)experiment.rebuild_update_step(); });
  const StepGraph& update = experiment.update_step();
  const double plan = median_ms(repeats, [&] { (void)make_plan(*update.graph, DeviceKind::cpu); });
  const nlohmann::json out = {{"recipe", path},
                              {"repeats", repeats},
                              {"nodes", update.plan.order.size()},
                              {"buffers", update.plan.buffers.size()},
                              {"build_rewrite_plan_ms", step},
                              {"of_which_plan_ms", plan},
                              {"arena_bytes", update.plan.arena_bytes},
                              {"live_peak_bytes", update.plan.live_peak_bytes},
                              {"naive_bytes", update.plan.naive_bytes}};
  fmt::print("{}\n", out.dump());
  if (!out_file.empty()) {
    std::ofstream(out_file) << out.dump(2) << "\n";
  }
  return 0;
}
