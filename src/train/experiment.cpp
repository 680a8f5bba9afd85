#include "train/experiment.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "compress/passes.h"
#include "nn/model_kinds.h"
#include "train/task.h"

namespace lithe {
namespace {

StepOptions read_step_options(const recipe::Recipe& recipe) {
  StepOptions options;
  options.shape.batch = recipe.integer("train.batch_size");
  options.accumulate = recipe.integer("train.accumulate");
  options.clip_norm = recipe.number("train.clip_norm");
  options.label_smoothing = recipe.number("train.label_smoothing");
  options.unfused_attention = recipe.string("model.attention") == "unfused";
  options.compute = *dtype_from_name(recipe.string("train.compute"));
  options.fuse = recipe.boolean("train.fuse");
  options.numerics.tf32 = recipe.boolean("train.tf32");
  options.numerics.deterministic = recipe.boolean("train.deterministic");
  return options;
}

}  // namespace

Experiment::Experiment(const recipe::Recipe& recipe, DeviceKind device, std::string_view without)
    : recipe_(recipe),
      device_(device),
      config_(experiment_config(recipe)),
      options_(read_step_options(recipe)) {
  model_ = nn::make_model(slots_, config_);
  check_task(recipe, *model_);
  options_.shape.tokens = most_tokens(recipe, *model_);
  passes_ = make_passes(recipe, without);
  optimizer_ = make_optimizer(recipe.section("optimizer"));
  if (recipe.integer("eval.every_steps") >= 0) {
    eval_batch_ = recipe.integer("eval.batch_size");
    eval_batch_ = eval_batch_ == 0 ? options_.shape.batch : eval_batch_;
  }

  model_preview_ = passes_.preview({model_.get(), &slots_, nullptr});
  model_reports_ = passes_.apply_model({model_.get(), &slots_, nullptr});
  if (options_.compute != DType::f32) {
    slots_.add_copies(options_.compute);
  }
  add_training_slots(slots_, *model_, *optimizer_, options_.accumulate);
  plan_graphs();
}

const StepGraph& Experiment::step(StepKind kind, const StepShape& shape) {
  const auto known = graphs_.find({kind, shape});
  if (known != graphs_.end()) {
    return known->second;
  }
  StepOptions options = options_;
  options.shape = shape;
  return graphs_
      .emplace(std::pair(kind, shape),
               build_step({*model_, slots_, passes_, device_}, *optimizer_, options, kind))
      .first->second;
}

StepGraph Experiment::rebuild_update_step() const {
  SlotTable& slots = model_->slots();
  return build_step({*model_, slots, passes_, device_}, *optimizer_, options_, StepKind::update);
}

void Experiment::plan_graphs() {
  graphs_.clear();
  (void)steps();
}

void Experiment::limit_tokens(int64_t longest) {
  if (longest < options_.shape.tokens) {
    options_.shape.tokens = longest;
    plan_graphs();
  }
}

std::vector<const StepGraph*> Experiment::steps() {
  std::vector<const StepGraph*> out = {&update_step()};
  if (options_.accumulate > 1) {
    out.push_back(&step(StepKind::accumulate, options_.shape));
  }
  if (has_eval()) {
    out.push_back(&step(StepKind::eval, {eval_batch_, options_.shape.tokens}));
  }
  return out;
}

std::vector<std::string> Experiment::preview() {
  std::vector<std::string> lines = model_preview_;
  const std::vector<std::string>& more = update_step().preview;
  lines.insert(lines.end(), more.begin(), more.end());
  return lines;
}

MemoryReport Experiment::memory() {
  const std::vector<const StepGraph*> all = steps();
  MemoryReport report = memory_report(slots_, all, device_);
  std::vector<PassReport> passes = model_reports_;
  const std::vector<PassReport>& more = update_step().passes;
  passes.insert(passes.end(), more.begin(), more.end());
  for (const PassReport& pass : passes) {
    Experiment other(recipe_, device_, pass.name);
    other.limit_tokens(options_.shape.tokens);
    const std::vector<const StepGraph*> other_steps = other.steps();
    report.passes.push_back(
        {.name = pass.name,
         .what = pass.what,
         .sites = pass.sites,
         .bytes_before = memory_report(other.slots_, other_steps, device_).predicted_peak_bytes,
         .bytes_after = report.predicted_peak_bytes});
  }
  return report;
}

}  // namespace lithe
