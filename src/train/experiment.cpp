#include "train/experiment.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "compress/passes.h"
#include "nn/model_kinds.h"

namespace lithe {
namespace {

StepOptions read_step_options(const recipe::Recipe& recipe) {
  StepOptions options;
  options.batch = recipe.integer("train.batch_size");
  options.accumulate = recipe.integer("train.accumulate");
  options.clip_norm = recipe.number("train.clip_norm");
  options.label_smoothing = recipe.number("train.label_smoothing");
  options.unfused_attention = recipe.string("model.attention") == "unfused";
  return options;
}

}  // namespace

Experiment::Experiment(const recipe::Recipe& recipe, DeviceKind device, std::string_view without)
    : recipe_(recipe), device_(device), options_(read_step_options(recipe)) {
  model_ = nn::make_model(slots_, nn::model_config(recipe.section("model")));
  passes_ = make_passes(recipe, without);
  optimizer_ = make_optimizer(recipe.section("optimizer"));
  eval_batch_ = recipe.integer("eval.batch_size");
  eval_batch_ = eval_batch_ == 0 ? options_.batch : eval_batch_;

  model_preview_ = passes_.preview({model_.get(), &slots_, nullptr});
  model_reports_ = passes_.apply_model({model_.get(), &slots_, nullptr});
  add_training_slots(slots_, *model_, *optimizer_, options_.accumulate);
  plan_graphs();
}

void Experiment::plan_graphs() {
  const StepContext context{*model_, slots_, passes_, device_};
  update_ = rebuild_update_step();
  if (options_.accumulate > 1) {
    accumulate_ = build_accumulate_step(context, options_);
  }
  if (recipe_.integer("eval.every_steps") >= 0) {
    StepOptions eval = options_;
    eval.batch = eval_batch_;
    eval.label_smoothing = 0;
    eval_ = build_eval_step(context, eval);
  }
}

StepGraph Experiment::rebuild_update_step() {
  return build_update_step({*model_, slots_, passes_, device_}, *optimizer_, options_);
}

std::vector<const StepGraph*> Experiment::steps() const {
  std::vector<const StepGraph*> out = {&update_};
  if (accumulate_) {
    out.push_back(&*accumulate_);
  }
  if (eval_) {
    out.push_back(&*eval_);
  }
  return out;
}

std::vector<std::string> Experiment::preview() const {
  std::vector<std::string> lines = model_preview_;
  lines.insert(lines.end(), update_.preview.begin(), update_.preview.end());
  return lines;
}

MemoryReport Experiment::memory() const {
  const std::vector<const StepGraph*> all = steps();
  MemoryReport report = memory_report(slots_, all);
  std::vector<PassReport> passes = model_reports_;
  passes.insert(passes.end(), update_.passes.begin(), update_.passes.end());
  for (const PassReport& pass : passes) {
    const Experiment other(recipe_, device_, pass.name);
    const std::vector<const StepGraph*> other_steps = other.steps();
    report.passes.push_back(
        {.name = pass.name,
         .what = pass.what,
         .sites = pass.sites,
         .bytes_before = memory_report(other.slots_, other_steps).predicted_peak_bytes,
         .bytes_after = report.predicted_peak_bytes});
  }
  return report;
}

}  // namespace lithe
