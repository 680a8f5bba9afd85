// Time of a recipe's training step with made-up data: median over steps, and where it goes by op.
// Usage: bench_step [--recipe FILE] [--device D] [--steps N] [--profiled N] [--table]
//        [--trace FILE] [--peak-tflops X] [--peak-gbs X] [--out FILE] [key.path=value ...]
// The last line printed is one JSON object.
#include <algorithm>
#include <chrono>
#include <fstream>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "report/profile.h"
#include "tensor/core/error.h"
#include "tensor/core/philox.h"
#include "tensor/graph/executor.h"
#include "tensor/ops/blas.h"
#include "tensor/ops/op_table.h"
#include "train/device.h"
#include "train/experiment.h"
#include "train/input_stage.h"
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

struct Bound {
  Executor& executor;
  const StepGraph& step;
  Program program;
  Batch batch;
};

// Milliseconds of each step, sorted. As the training loop does, a device of its own is kept a step
// ahead.
std::vector<double> time_steps(const Bound& bound, StepRunner& runner, int steps) {
  std::vector<double> times;
  auto last = Clock::now();
  for (int i = 0; i < steps + kWarmUp; ++i) {
    runner.launch(bound.step, bound.program, bound.batch,
                  {.step = i, .seed = 1, .draw = i, .lr = 1e-4});
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
  return times;
}

void profile_steps(const Bound& bound, StepRunner& runner, int steps, StepProfile& profile) {
  for (int i = 0; i < steps; ++i) {
    runner.launch(bound.step, bound.program, bound.batch,
                  {.step = i, .seed = 1, .draw = i, .lr = 1e-4, .profile = true});
    (void)runner.collect();
    add_step(profile, *bound.step.graph, bound.step.plan, runner.profiled());
  }
}

// What the device can do at most, where the options do not say otherwise.
void set_peaks(StepProfile& profile, const StepOptions& step, const DeviceRates& rates,
               double tflops, double gbs) {
  const double flops = step.compute != DType::f32 ? rates.flops_16_bit
                       : step.numerics.tf32       ? rates.flops_tf32
                                                  : rates.flops_fp32;
  profile.flops_per_s = tflops > 0 ? 1e12 * tflops : flops;
  profile.bytes_per_s = gbs > 0 ? 1e9 * gbs : rates.bytes_per_s;
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  if (!(file << text << "\n") || !file.flush()) {
    throw FileError(path, "cannot be written; check the folder and the space on the disk");
  }
}

// What the profile adds to the JSON: the step's traffic, its floor, and the time by op.
void add_profile(nlohmann::ordered_json& json, const StepProfile& profile) {
  double bytes = 0;
  double floor = 0;
  double seconds = 0;
  int launches = 0;
  nlohmann::ordered_json by_op;
  for (const OpTotal& t : totals_by_op(profile)) {
    by_op[t.op] = {{"ms", 1e3 * t.seconds},
                   {"launches", t.launches},
                   {"gflop", 1e-9 * t.flops},
                   {"gbyte", 1e-9 * t.bytes}};
    if (t.floor_seconds > 0) {
      by_op[t.op]["floor_ms"] = 1e3 * t.floor_seconds;
    }
    bytes += t.bytes;
    floor += t.floor_seconds;
    seconds += t.seconds;
    launches += t.launches;
  }
  json["launches"] = launches;
  json["gbyte_per_step"] = 1e-9 * bytes;
  json["profiled_ms"] = 1e3 * seconds;
  if (floor > 0) {
    json["floor_ms_of_ops"] = 1e3 * floor;
  }
  json["ms_by_op"] = by_op;
}

struct Options {
  std::string recipe = "configs/quickstart/vit_fashion_mnist.yaml";
  std::string device = "cpu";
  int steps = 30;
  int profiled = 5;
  bool table = false;
  std::string trace;
  double peak_tflops = 0;
  double peak_gbs = 0;
  std::string out;
  std::vector<std::string> overrides;
};

void run(const Options& options) {
  const recipe::Recipe recipe = load_train_recipe(options.recipe, options.overrides);
  const std::shared_ptr<DeviceMemory> memory = open_device(options.device);
  Experiment experiment(recipe, memory->kind());
  Executor executor(memory, kernel_lookup(memory->kind()), experiment.slots());
  const StepGraph& step = experiment.update_step();
  const Bound bound{executor, step, executor.bind(*step.graph, step.plan), make_batch(step)};
  for (SlotId s = 0; s < experiment.slots().size(); ++s) {
    executor.write_slot(s, initial_value(experiment.slots(), s, 1));
  }
  StepRunner runner(executor, input_stage_bytes(step, memory->kind()));
  const std::vector<double> times = time_steps(bound, runner, options.steps);
  const double median = times[times.size() / 2];

  nlohmann::ordered_json json = {
      {"recipe", options.recipe},
      {"overrides", options.overrides},
      {"device", memory->description()},
      {"steps", options.steps},
      {"median_ms", median},
      {"min_ms", times.front()},
      {"samples_per_s", 1e3 * static_cast<double>(experiment.step_options().shape.batch) / median},
      {"gflop_per_step", step.flops * 1e-9},
      {"gflop_per_s", step.flops * 1e-6 / median},
      {"planned_peak_bytes", experiment.memory().predicted_peak_bytes},
      {"measured_peak_bytes", memory->peak_bytes()},
      {"context_bytes", memory->context_bytes()},
      {"nodes", step.plan.order.size()}};
  if (options.profiled > 0) {
    StepProfile profile;
    profile.step_seconds = 1e-3 * median;
    set_peaks(profile, experiment.step_options(), memory->rates(), options.peak_tflops,
              options.peak_gbs);
    profile_steps(bound, runner, options.profiled, profile);
    add_profile(json, profile);
    if (options.table) {
      fmt::print("{}", profile_table(profile));
    }
    if (!options.trace.empty()) {
      write_file(options.trace, chrome_trace(profile).dump());
    }
  }
  fmt::print("{}\n", json.dump());
  if (!options.out.empty()) {
    write_file(options.out, json.dump(2));
  }
}

}  // namespace

int main(int argc, char** argv) {
  select_blas_core(argc, argv);
  Options options;
  CLI::App app{"Times a training step."};
  app.add_option("--recipe", options.recipe, "the recipe");
  app.add_option("--steps", options.steps, "timed steps")->check(CLI::PositiveNumber);
  app.add_option("--profiled", options.profiled, "steps measured op by op; 0: none")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--table", options.table, "print the time by op");
  app.add_option("--trace", options.trace, "write a profiled step for chrome://tracing here");
  app.add_option("--peak-tflops", options.peak_tflops,
                 "for floors, instead of what the device's clocks give");
  app.add_option("--peak-gbs", options.peak_gbs, "the same for its memory");
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
  app.add_option("--out", options.out, "also write the JSON here");
  app.add_option("overrides", options.overrides, "key.path=value");
  CLI11_PARSE(app, argc, argv);
  try {
    run(options);
  } catch (const Error& e) {
    fmt::print(stderr, "bench_step: {}\n", e.what());
    return static_cast<int>(e.code());
  }
  return 0;
}
