// Time of a recipe's training step with made-up data: median over steps, and where it goes by op.
// Usage: bench_step [--recipe FILE] [--device D] [--steps N] [--out FILE] [key.path=value ...];
// prints one JSON object.
#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <map>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tensor/core/philox.h"
#include "tensor/graph/executor.h"
#include "tensor/ops/blas.h"
#include "tensor/ops/op_table.h"
#include "train/device.h"
#include "train/experiment.h"
#include "train/options.h"
#include "train/step_runner.h"

namespace {

using namespace lithe;  // NOLINT: a program, not a header
using Clock = std::chrono::steady_clock;

constexpr int kWarmUp = 5;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Random values: zeros would flatter the caches and hide unwritten outputs.
Batch make_batch(const StepGraph& step) {
  const Graph& g = *step.graph;
  Batch batch;
  batch.rows.resize(static_cast<size_t>(step.shape.batch));
  batch.tokens = step.shape.tokens;
  for (const auto& [name, value] : step.inputs) {
    Tensor& data = batch.field(name, g.dtype(value), g.shape(value));
    if (g.dtype(value) == DType::boolean) {
      std::fill_n(data.data(), data.bytes(), std::byte{1});  // nothing is padded
    } else if (g.dtype(value) == DType::f32) {
      auto values = data.as<float>();
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = 2 * uniform01(philox(1, 2, i).word[0]) - 1;
      }
    } else {
      // In range of any vocabulary, segment table and head of two classes.
      const uint32_t limit = name == "input_ids" ? 1000 : 2;
      auto values = data.as<int64_t>();
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = philox(1, 3, i).word[0] % limit;
      }
    }
  }
  return batch;
}

}  // namespace

int main(int argc, char** argv) {
  select_blas_core(argc, argv);
  std::string path = "configs/quickstart/vit_fashion_mnist.yaml";
  int steps = 30;
  std::string out;
  std::string device = "cpu";
  std::vector<std::string> overrides;
  CLI::App app{"Times a training step."};
  app.add_option("--recipe", path, "the recipe");
  app.add_option("--steps", steps, "timed steps")->check(CLI::PositiveNumber);
  app.add_option("--device", device, "cpu, cuda or cuda:N");
  app.add_option("--out", out, "also write the JSON here");
  app.add_option("overrides", overrides, "key.path=value");
  CLI11_PARSE(app, argc, argv);

  const recipe::Recipe recipe = recipe::Recipe::load(path, train_options(), overrides);
  const std::shared_ptr<DeviceMemory> memory = open_device(device);
  Experiment experiment(recipe, memory->kind());
  Executor executor(memory, kernel_lookup(memory->kind()), experiment.slots());
  const StepGraph& step = experiment.update_step();
  const Program program = executor.bind(*step.graph, step.plan);
  for (SlotId s = 0; s < experiment.slots().size(); ++s) {
    executor.write_slot(s, initial_value(experiment.slots(), s, 1));
  }
  const Batch batch = make_batch(step);
  StepRunner runner(executor);

  // As the training loop does: a device of its own is kept a step ahead.
  std::vector<double> times;
  auto last = Clock::now();
  for (int i = 0; i < steps + kWarmUp; ++i) {
    runner.launch(step, program, batch, {.step = i, .seed = 1, .draw = i, .lr = 1e-4});
    if (runner.open() > runner.ahead()) {
      (void)runner.collect();
      if (i >= kWarmUp) {
        times.push_back(1e3 * seconds_since(last));
      }
      last = Clock::now();
    }
  }
  while (runner.collect()) {
  }
  std::sort(times.begin(), times.end());

  const Graph& g = *step.graph;
  std::map<std::string, double> by_op;
  constexpr int kProfiled = 5;
  for (int i = 0; i < kProfiled; ++i) {
    runner.feed(step, program, batch);
    if (step.rng != kNoValue) {
      const std::array<int64_t, 2> rng = {1, i};
      executor.write(program, step.rng, Tensor::from<int64_t>({2}, rng));
    }
    const std::array<float, 1> lr = {1e-4f};
    executor.write(program, step.lr, Tensor::from<float>({1}, lr));
    executor.run_profiled(program, [&](int position, double seconds) {
      const NodeId n = step.plan.order[static_cast<size_t>(position)];
      by_op[std::string(g.node(n).op->name)] += 1e3 * seconds / kProfiled;
    });
  }
  const double median = times[times.size() / 2];
  nlohmann::ordered_json json = {
      {"recipe", path},
      {"device", executor.memory().description()},
      {"steps", steps},
      {"median_ms", median},
      {"min_ms", times.front()},
      {"samples_per_s", 1e3 * static_cast<double>(experiment.step_options().shape.batch) / median},
      {"gflop_per_step", step.flops * 1e-9},
      {"gflop_per_s", step.flops * 1e-6 / median},
      {"planned_peak_bytes", experiment.memory().predicted_peak_bytes},
      {"nodes", step.plan.order.size()},
      {"ms_by_op", by_op}};
  fmt::print("{}\n", json.dump());
  if (!out.empty()) {
    std::ofstream(out) << json.dump(2) << "\n";
  }
  return 0;
}
