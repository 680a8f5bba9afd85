// train RECIPE.yaml [key.path=value ...]: fine-tunes a model as the recipe says.
// train --compare A B ...: memory of recipes and runs side by side.
#include <csignal>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <new>
#include <optional>

#include <fmt/chrono.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "report/memory_table.h"
#include "report/profile.h"
#include "tensor/core/whole_file.h"
#include "tensor/ops/blas.h"
#include "train/device.h"
#include "train/fit.h"
#include "train/options.h"
#include "train/trainer.h"
#include "train_compare.h"

namespace {

using namespace lithe;  // NOLINT: a program, not a header

std::atomic<bool> g_stop{false};

struct Arguments {
  std::string recipe;
  std::vector<std::string> overrides;
  std::string device = "auto";
  std::string out;
  bool dry_run = false;
  bool print_config = false;
  bool resume = false;
  bool overwrite = false;
  bool json = false;
  int64_t profile = 0;  // steps; 0: none
  bool compare = false;
  std::string html;
};

std::string run_name(const recipe::Recipe& recipe, const Arguments& args) {
  std::string name = recipe.has("name") ? recipe.string("name")
                                        : std::filesystem::path(args.recipe).stem().string();
  // It becomes a folder of runs/.
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
    throw UsageError("name",
                     "{}: '{}' is no folder name; leave out '/', or choose a folder by --out",
                     recipe.where("name"), name);
  }
  return name;
}

// A file name need not be UTF-8, JSON has to be.
void print_json(const RunSummary& summary, const MemoryReport& memory) {
  fmt::print("{}\n", summary_json(summary, &memory)
                         .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void print_plan(Experiment& experiment, const MemoryReport& memory) {
  for (const std::string& line : experiment.preview()) {
    fmt::print("{}\n", line);
  }
  fmt::print("{}", memory_table(memory));
}

void write_profile(const StepProfile& profile, RunFolder& folder) {
  if (profile.steps == 0) {
    folder.log().warn("no step was left to profile; ask for more steps in all");
    return;
  }
  const std::filesystem::path file = folder.path() / "trace.json";
  write_file_atomically(file, chrome_trace(profile).dump());
  fmt::print("{}", profile_table(profile));
  folder.log().info("{} steps profiled; open {} in https://ui.perfetto.dev", profile.steps,
                    file.string());
}

int dry_run(const recipe::Recipe& recipe, const Arguments& args, DeviceKind device) {
  Experiment experiment(recipe, device);
  MemoryReport memory = experiment.memory();
  memory.device = device == DeviceKind::cpu ? "cpu" : "cuda";
  print_plan(experiment, memory);
  if (args.json) {
    RunSummary summary;
    summary.name = run_name(recipe, args);
    summary.status = "dry run";
    summary.device = memory.device;
    summary.seed = static_cast<uint64_t>(recipe.integer("seed"));
    print_json(summary, memory);
  }
  return 0;
}

int run(const recipe::Recipe& recipe, const Arguments& args) {
  const std::string name = run_name(recipe, args);
  const std::string started = fmt::format(
      "{:%Y-%m-%dT%H:%M:%SZ}",
      fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
  const std::shared_ptr<DeviceMemory> memory = open_device(args.device);
  // Everything that may be refused comes before the folder, whose earlier run may be replaced.
  Experiment experiment(recipe, memory->kind());
  TrainingData data = open_training_data(recipe, experiment.model());
  if (data.longest > 0) {
    experiment.limit_tokens(data.longest);
  }
  check_fits(experiment, *memory);
  std::optional<StartWeights> weights;
  if (!args.resume) {
    weights.emplace(experiment);
  }
  MemoryReport report = experiment.memory();
  report.device = memory->description();
  report.context_bytes = memory->context_bytes();
  RunFolder folder(
      args.out.empty() ? std::filesystem::path("runs") / name : std::filesystem::path(args.out),
      args.resume ? RunMode::kResume : (args.overwrite ? RunMode::kOverwrite : RunMode::kNew));
  print_plan(experiment, report);

  Trainer trainer(experiment, folder, memory, std::move(data));
  trainer.profile(args.profile);
  if (weights) {
    trainer.start(*weights);
  } else {
    trainer.resume();
  }
  // A resume that was refused leaves the recipe of the run as it was.
  folder.write_recipe(recipe.resolved());
  folder.write_memory(report);
  // Not earlier: until here there is nothing to save, so a signal may simply end the program.
  std::signal(SIGINT, [](int) { g_stop = true; });
  std::signal(SIGTERM, [](int) { g_stop = true; });
  RunSummary summary;
  const auto finish_summary = [&] {
    summary.name = name;
    summary.started = started;
    summary.seed = static_cast<uint64_t>(recipe.integer("seed"));
    summary.device = memory->description();
    summary.versions = {{"lithe", LITHE_VERSION}};
  };
  try {
    summary = trainer.run(g_stop);
  } catch (const Error& e) {
    // What the run reached stays readable.
    folder.log().error("{}", e.what());
    summary.status = e.code() == ExitCode::kInterrupted ? "interrupted" : "failed";
    finish_summary();
    folder.write_summary(summary, &report);
    folder.write_report();
    throw;
  }
  finish_summary();
  report.measured_peak_bytes = trainer.measured_peak_bytes();
  folder.write_memory(report);
  folder.write_summary(summary, &report);
  folder.write_report();
  if (args.profile > 0) {
    write_profile(trainer.profile(), folder);
  }
  const int64_t measured = report.measured_peak_bytes;
  folder.log().info("finished: predicted peak {} bytes, measured {}; see {}",
                    report.predicted_peak_bytes,
                    measured < 0 ? "none: no step was left" : fmt::format("{} bytes", measured),
                    (folder.path() / "report.html").string());
  if (args.json) {
    print_json(summary, report);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  select_blas_core(argc, argv);
  Arguments args;
  CLI::App app{"Fine-tunes a model as a recipe says; tells its peak memory before it starts."};
  app.add_option("recipe", args.recipe,
                 "the recipe (YAML); with --compare: recipes and run folders")
      ->required();
  app.add_option("overrides", args.overrides, "key.path=value, over what the recipe says");
  app.add_option("--device", args.device, "auto, cpu, cuda or cuda:N");
  CLI::Option* out = app.add_option("--out", args.out, "the run folder; default: runs/NAME");
  app.add_flag("--dry-run", args.dry_run,
               "print passes and memory, touch no data, weights or device");
  CLI::Option* print_config =
      app.add_flag("--print-config", args.print_config, "print the resolved recipe and stop");
  CLI::Option* resume =
      app.add_flag("--resume", args.resume, "go on from the run folder's newest checkpoint");
  CLI::Option* overwrite =
      app.add_flag("--overwrite", args.overwrite, "replace a finished run of the same name")
          ->excludes(resume);
  CLI::Option* profile =
      app.add_option("--profile", args.profile,
                     "measure N steps kernel by kernel: a table by op, and trace.json in the run "
                     "folder for Perfetto")
          ->check(CLI::PositiveNumber);
  app.add_flag("--json", args.json, "last line of stdout: one JSON object");
  CLI::Option* compared =
      app.add_flag("--compare", args.compare,
                   "run nothing: print the memory of recipes (as planned) and of run folders (as "
                   "measured), with their metrics and times, side by side; overrides are for all "
                   "recipes");
  for (CLI::Option* other : {out, print_config, resume, overwrite, profile}) {
    compared->excludes(other);
  }
  app.add_option("--html", args.html, "with --compare: write the comparison as a page too")
      ->needs(compared);
  const recipe::Schema schema = train_options();
  app.add_flag_callback(
      "--print-keys",
      [&] {
        fmt::print("# Recipe keys of train\n\n{}", schema.markdown());
        throw CLI::Success();
      },
      "print all recipe keys as a Markdown table and stop");
  app.footer("\nRecipe keys:\n" + schema.help());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : static_cast<int>(ExitCode::kUsage);
  }
  try {
    if (args.compare) {
      std::vector<std::string> operands = args.overrides;
      operands.insert(operands.begin(), args.recipe);
      compare({.operands = std::move(operands),
               .device = args.device,
               .html = args.html,
               .json = args.json});
      return 0;
    }
    const recipe::Recipe recipe = load_train_recipe(args.recipe, args.overrides);
    if (args.print_config) {
      fmt::print("{}", recipe.resolved());
      return 0;
    }
    return args.dry_run ? dry_run(recipe, args, planned_device(args.device)) : run(recipe, args);
  } catch (const Error& e) {
    fmt::print(stderr, "train: {}\n", e.what());
    return static_cast<int>(e.code());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr,
               "train: [memory] the host has no memory left; use a smaller model or batch\n");
    return static_cast<int>(ExitCode::kMemory);
  } catch (const std::filesystem::filesystem_error& e) {
    fmt::print(stderr, "train: [file] {}; check the path and the disk\n", e.what());
    return static_cast<int>(ExitCode::kFile);
  } catch (const std::exception& e) {
    fmt::print(stderr, "train: {}\n", e.what());
    return 1;
  }
}
