#include "train_compare.h"

#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "report/comparison_html.h"
#include "report/comparison_table.h"
#include "tensor/core/whole_file.h"
#include "train/device.h"
#include "train/experiment.h"
#include "train/options.h"

namespace lithe {
namespace {

constexpr size_t kMostRuns = 24;  // as many lines as a chart can tell apart

bool is_override(const std::string& operand) {
  const size_t equals = operand.find('=');
  return equals != std::string::npos && operand.find('/') > equals;
}

// As a dry run plans it.
ComparedRun planned_run(const std::string& path, const std::vector<std::string>& overrides,
                        DeviceKind device) {
  const recipe::Recipe recipe = load_train_recipe(path, overrides);
  Experiment experiment(recipe, device);
  ComparedRun run;
  run.memory = experiment.memory();
  run.memory.device = device == DeviceKind::cpu ? "cpu" : "cuda";
  run.summary.name =
      recipe.has("name") ? recipe.string("name") : std::filesystem::path(path).stem().string();
  run.summary.status = "dry run";
  run.summary.device = run.memory.device;
  run.summary.seed = static_cast<uint64_t>(recipe.integer("seed"));
  run.source = path;
  run.recipe_yaml = recipe.resolved();
  return run;
}

}  // namespace

void compare(const CompareArguments& args) {
  std::vector<std::string> sources;
  std::vector<std::string> overrides;
  for (const std::string& operand : args.operands) {
    (is_override(operand) ? overrides : sources).push_back(operand);
  }
  if (sources.size() < 2 || sources.size() > kMostRuns) {
    throw UsageError("compare", "{} recipes or run folders are given; give 2 to {}", sources.size(),
                     kMostRuns);
  }
  const DeviceKind device = planned_device(args.device);
  std::vector<ComparedRun> runs;
  bool any_recipe = false;
  for (const std::string& source : sources) {
    std::error_code ignored;
    const bool folder = std::filesystem::is_directory(source, ignored);
    any_recipe = any_recipe || !folder;
    runs.push_back(folder ? compared_run(source) : planned_run(source, overrides, device));
  }
  if (!overrides.empty() && !any_recipe) {
    throw UsageError("compare",
                     "{} changes recipes, and only folders of runs are compared; leave it out, or "
                     "compare FOLDER/recipe.yaml",
                     overrides.front());
  }
  make_names_unique(runs);
  fmt::print("{}", comparison_table(runs));
  if (!args.html.empty()) {
    write_file_atomically(args.html, render_comparison(runs));
    fmt::print("\nThe page is {}\n", args.html);
  }
  if (args.json) {
    // A file name need not be UTF-8, JSON has to be.
    fmt::print("{}\n", comparison_json(runs).dump(
                           -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  }
}

}  // namespace lithe
