// What a recipe describes, put together: model, passes, optimizer and the planned graphs. Needs
// neither data, weights nor a device, so a dry run stops here.
#pragma once

#include <memory>
#include <optional>

#include "recipe/recipe.h"
#include "train/memory.h"
#include "train/step_graph.h"

namespace lithe {

class Experiment {
 public:
  // Throws UsageError or FileError for what does not fit together.
  // `without` leaves out one pass of the recipe, to tell what it changes.
  Experiment(const recipe::Recipe& recipe, DeviceKind device, std::string_view without = "");
  Experiment(const Experiment&) = delete;

  const recipe::Recipe& recipe() const { return recipe_; }
  nn::Model& model() { return *model_; }
  SlotTable& slots() { return slots_; }
  const PassManager& passes() const { return passes_; }
  const StepOptions& step_options() const { return options_; }
  int64_t eval_batch() const { return eval_batch_; }

  const StepGraph& update_step() const { return update_; }
  const StepGraph* accumulate_step() const { return accumulate_ ? &*accumulate_ : nullptr; }
  const StepGraph* eval_step() const { return eval_ ? &*eval_ : nullptr; }
  // Builds, rewrites and plans the update step anew, as a schedule does at every step.
  StepGraph rebuild_update_step();
  // Every graph that the run may execute; they share one arena.
  std::vector<const StepGraph*> steps() const;

  // What each pass was about to change, one line each.
  std::vector<std::string> preview() const;
  // Builds and plans all graphs anew, after a pass has changed its mind (PassManager::on).
  void plan_graphs();

  // With the pass table; the predicted peak is what the executor will allocate.
  MemoryReport memory() const;

 private:
  const recipe::Recipe& recipe_;
  DeviceKind device_;
  SlotTable slots_;
  std::unique_ptr<nn::Model> model_;
  PassManager passes_;
  std::unique_ptr<Optimizer> optimizer_;
  StepOptions options_;
  int64_t eval_batch_ = 0;
  StepGraph update_;
  std::optional<StepGraph> accumulate_;
  std::optional<StepGraph> eval_;
  std::vector<std::string> model_preview_;
  std::vector<PassReport> model_reports_;
};

}  // namespace lithe
