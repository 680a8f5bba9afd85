// Time of a recipe's training step on the CPU with synthetic data: median over steps, and where it
// goes by op. Usage: bench_step [--recipe FILE] [--steps N] [--out FILE] [key.path=value ...];
// prints one JSON object.
#include <algorithm>
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
#include "train/experiment.h"
#include "train/options.h"

namespace {

using namespace lithe;  // NOLINT: a program, not a header
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

using Inputs = std::vector<std::pair<ValueId, Tensor>>;

// Random pixels: zeros would flatter the caches and hide unwritten outputs.
Inputs make_inputs(const StepGraph& step) {
  const Graph& g = *step.graph;
  Inputs inputs;
  for (ValueId v : g.leaves()) {
    if (!g.value(v).is_input) {
      continue;
    }
    Tensor data(g.dtype(v), g.shape(v));
    if (g.dtype(v) == DType::boolean) {
      std::fill_n(data.data(), data.bytes(), std::byte{1});  // nothing is padded
    } else if (g.dtype(v) == DType::f32) {
      auto values = data.as<float>();
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = v == step.lr ? 1e-3f : 2 * uniform01(philox(1, 2, i).word[0]) - 1;
      }
    } else if (g.dtype(v) == DType::i64 && v != step.rng) {
      // In range of any vocabulary, segment table and head of two classes.
      const std::string name = g.name(v);
      const uint32_t limit = name == "input_ids" ? 1000 : 2;
      auto values = data.as<int64_t>();
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = philox(1, 3, i).word[0] % limit;
      }
    }
    inputs.emplace_back(v, std::move(data));
  }
  return inputs;
}

// Inputs live in the arena and are overwritten once read, so each step writes them anew.
void write_inputs(Executor& executor, const Program& program, const Inputs& inputs) {
  for (const auto& [value, data] : inputs) {
    executor.write(program, value, data);
  }
}

}  // namespace

int main(int argc, char** argv) {
  select_blas_core(argc, argv);
  std::string path = "configs/quickstart/vit_fashion_mnist.yaml";
  int steps = 30;
  std::string out;
  std::vector<std::string> overrides;
  CLI::App app{"Times a training step on the CPU."};
  app.add_option("--recipe", path, "the recipe");
  app.add_option("--steps", steps, "timed steps")->check(CLI::PositiveNumber);
  app.add_option("--out", out, "also write the JSON here");
  app.add_option("overrides", overrides, "key.path=value");
  CLI11_PARSE(app, argc, argv);

  const recipe::Recipe recipe = recipe::Recipe::load(path, train_options(), overrides);
  Experiment experiment(recipe, DeviceKind::cpu);
  Executor executor(cpu_memory(), cpu_kernel, experiment.slots());
  const StepGraph& step = experiment.update_step();
  const Program program = executor.bind(*step.graph, step.plan);
  for (SlotId s = 0; s < experiment.slots().size(); ++s) {
    executor.write_slot(s, initial_value(experiment.slots()[s], 1));
  }
  const Inputs inputs = make_inputs(step);

  std::vector<double> times;
  for (int i = 0; i < steps + 3; ++i) {
    const auto start = Clock::now();
    write_inputs(executor, program, inputs);
    executor.run(program);
    if (i >= 3) {
      times.push_back(1e3 * seconds_since(start));
    }
  }
  std::sort(times.begin(), times.end());

  const Graph& g = *step.graph;
  double flops = 0;
  std::map<std::string, double> by_op;
  for (NodeId n : step.plan.order) {
    flops += g.node(n).op->flops == nullptr ? 0 : g.node(n).op->flops(g, n);
  }
  constexpr int kProfiled = 5;
  for (int i = 0; i < kProfiled; ++i) {
    write_inputs(executor, program, inputs);
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
      {"gflop_per_step", flops * 1e-9},
      {"gflop_per_s", flops * 1e-6 / median},
      {"planned_peak_bytes", experiment.memory().predicted_peak_bytes},
      {"ms_by_op", by_op}};
  fmt::print("{}\n", json.dump());
  if (!out.empty()) {
    std::ofstream(out) << json.dump(2) << "\n";
  }
  return 0;
}
