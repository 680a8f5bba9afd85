// Time to build, rewrite and plan a full training step of ViT-B/16 on one core, by stage. Prints JSON.
// Usage: bench_plan [RECIPE] [REPEATS]; DESIGN section 1 asks for at most 3 ms.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <vector>

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
  const std::string path = argc > 1 ? argv[1] : "configs/bench/vit_b16.yaml";
  const int repeats = argc > 2 ? std::max(1, std::atoi(argv[2])) : 50;
  const recipe::Recipe recipe = recipe::Recipe::load(path, train_options(), {});
  Experiment experiment(recipe, DeviceKind::cpu);
  const double step = median_ms(repeats, [&] { (void)experiment.rebuild_update_step(); });
  const StepGraph& update = experiment.update_step();
  const double plan =
      median_ms(repeats, [&] { (void)make_plan(*update.graph, DeviceKind::cpu); });
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
  return 0;
}
