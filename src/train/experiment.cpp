#include "train/experiment.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "compress/passes.h"
#include "nn/model_kinds.h"
#include "train/largest_choice.h"
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
  options.value_dropout = recipe.string("model.attention_dropout") == "values";
  options.compute = *dtype_from_name(recipe.string("train.compute"));
  options.fuse = recipe.boolean("train.fuse");
  options.numerics.tf32 = recipe.boolean("train.tf32");
  options.numerics.deterministic = recipe.boolean("train.deterministic");
  return options;
}

// The most that lives in each part of a step: a module's forward or its backward, with the updates
// that follow. `parts` numbers them, for all steps alike.
void add_live_bytes(const StepGraph& step, std::unordered_map<std::string, size_t>& parts,
                    std::vector<int64_t>& live) {
  const Graph& g = *step.graph;
  const std::vector<MemoryByClass> timeline = step.plan.timeline();
  size_t part = 0;
  for (size_t p = 0; p < step.plan.order.size(); ++p) {
    const Node& node = g.node(step.plan.order[p]);
    if (node.phase != Phase::update) {
      std::string key = g.scope(node.scope).path;
      key += node.phase == Phase::forward ? ">" : "<";
      part = parts.emplace(std::move(key), parts.size()).first->second;
    }
    live.resize(std::max(live.size(), part + 1), 0);
    live[part] =
        std::max(live[part], std::accumulate(timeline[p].begin(), timeline[p].end(), int64_t{0}));
  }
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

  const PassTarget target = pass_target();
  model_reports_ = passes_.apply_model(target, &model_preview_);
  if (options_.compute != DType::f32) {
    slots_.add_copies(options_.compute);
    if (device_ != DeviceKind::cpu) {
      slots_.keep_frozen_on_host();
    }
  }
  add_training_slots(slots_, *model_, *optimizer_, options_.accumulate);
  plan_graphs();
}

PassTarget Experiment::pass_target() {
  return {.model = model_.get(),
          .slots = &slots_,
          .seed = static_cast<uint64_t>(recipe_.integer("seed"))};
}

StepGraph Experiment::build(StepKind kind, const StepShape& shape) const {
  StepOptions options = options_;
  options.shape = shape;
  return build_step({*model_, model_->slots(), passes_, device_}, *optimizer_, options, kind);
}

const StepGraph& Experiment::step(StepKind kind, const StepShape& shape) {
  const GraphKey key{choice(kind), kind, shape};
  const auto known = graphs_.find(key);
  return known != graphs_.end() ? known->second
                                : graphs_.emplace(key, build(kind, shape)).first->second;
}

StepGraph Experiment::rebuild_update_step() const {
  return build(StepKind::update, options_.shape);
}

void Experiment::plan_graphs() {
  graphs_.clear();
  choices_.clear();
  if (passes_.schedule() != nullptr) {
    plan_largest_choice();
  }
  (void)steps();
}

std::vector<SlotId> Experiment::trained_units() const {
  std::vector<SlotId> out;
  for (const SlotId unit : passes_.schedule()->units) {
    if (slots_[unit].trainable) {
      out.push_back(unit);
    }
  }
  return out;
}

void Experiment::plan_largest_choice() {
  const UnitSchedule& schedule = *passes_.schedule();
  const auto mark = [&](std::span<const int64_t> chosen) {
    for (const SlotId unit : schedule.units) {
      slots_[unit].trainable = false;
    }
    for (const int64_t unit : chosen) {
      slots_[schedule.units[static_cast<size_t>(unit)]].trainable = true;
    }
  };
  std::unordered_map<std::string, size_t> parts;
  const auto plan = [&](std::span<const int64_t> chosen) {
    mark(chosen);
    ChoiceBytes out;
    for (const StepKind kind : {StepKind::update, StepKind::accumulate}) {
      if (kind == StepKind::update || options_.accumulate > 1) {
        const StepGraph step = build(kind, options_.shape);
        out.arena = std::max(out.arena, step.plan.arena_bytes);
        out.live = std::max(out.live, step.plan.live_peak_bytes);
        add_live_bytes(step, parts, out.parts);
      }
    }
    return out;
  };
  const LargestChoice largest =
      largest_choice(schedule.active, static_cast<int64_t>(schedule.units.size()), plan);
  mark(largest.units);
  largest_ = trained_units();
  choice_ = kLargest;
  StepGraph& step = graphs_
                        .emplace(GraphKey{kLargest, StepKind::update, options_.shape},
                                 build(StepKind::update, options_.shape))
                        .first->second;
  // All graphs share one arena, so what another choice might need is asked for here.
  const int64_t rest = std::max<int64_t>(0, largest.arena - step.plan.arena_bytes);
  step.plan.arena_bytes += rest;
  step.plan.peak_by_class[static_cast<size_t>(MemoryClass::temporaries)] += rest;
}

std::optional<int64_t> Experiment::take_choice() {
  std::vector<SlotId> trained = trained_units();
  if (trained == largest_) {
    choice_ = kLargest;
    return std::nullopt;
  }
  const auto known = std::find_if(choices_.begin(), choices_.end(),
                                  [&](const Choice& c) { return c.trained == trained; });
  if (known != choices_.end()) {
    std::rotate(choices_.begin(), known, known + 1);
    choice_ = choices_.front().id;
    return std::nullopt;
  }
  choice_ = ++last_id_;
  choices_.insert(choices_.begin(), {choice_, std::move(trained)});
  if (choices_.size() <= kKeptChoices) {
    return std::nullopt;
  }
  const int64_t gone = choices_.back().id;
  choices_.pop_back();
  std::erase_if(graphs_, [&](const auto& entry) { return entry.first.choice == gone; });
  return gone;
}

void Experiment::limit_tokens(int64_t longest) {
  if (longest < options_.shape.tokens) {
    options_.shape.tokens = longest;
    plan_graphs();
  }
}

std::vector<const StepGraph*> Experiment::steps() {
  const int64_t present = choice_;
  if (passes_.schedule() != nullptr) {
    choice_ = kLargest;  // its graphs were made while its units were marked
  }
  std::vector<const StepGraph*> out = {&update_step()};
  if (options_.accumulate > 1) {
    out.push_back(&step(StepKind::accumulate, options_.shape));
  }
  choice_ = present;
  if (has_eval()) {
    out.push_back(&step(StepKind::eval, {eval_batch_, options_.shape.tokens}));
  }
  return out;
}

std::vector<std::string> Experiment::preview() {
  std::vector<std::string> lines = model_preview_;
  const std::vector<std::string>& more = steps().front()->preview;
  lines.insert(lines.end(), more.begin(), more.end());
  return lines;
}

MemoryReport Experiment::memory() {
  const std::vector<const StepGraph*> all = steps();
  MemoryReport report = memory_report(slots_, all, device_);
  std::vector<PassReport> passes = model_reports_;
  const std::vector<PassReport>& more = all.front()->passes;
  passes.insert(passes.end(), more.begin(), more.end());
  for (const PassReport& pass : passes) {
    PassRow row{.name = pass.name,
                .what = pass.what,
                .sites = pass.sites,
                .bytes_after = report.predicted_peak_bytes};
    try {
      Experiment other(recipe_, device_, pass.name);
      other.limit_tokens(options_.shape.tokens);
      const std::vector<const StepGraph*> other_steps = other.steps();
      row.bytes_before = memory_report(other.slots_, other_steps, device_).predicted_peak_bytes;
    } catch (const UsageError&) {  // a pass may choose among what another one makes
      row.note = "other passes need it";
    }
    report.passes.push_back(std::move(row));
  }
  return report;
}

}  // namespace lithe
