// What a recipe describes, put together: model, passes, optimizer and the planned graphs. Needs
// neither data, weights nor a device, so a dry run stops here.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

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
  const nn::Model& model() const { return *model_; }
  // The config.json that the model was made of, with fields that the engine does not use.
  const nlohmann::json& config() const { return config_; }
  SlotTable& slots() { return slots_; }
  const PassManager& passes() const { return passes_; }
  PassTarget pass_target();  // of the model passes
  const StepOptions& step_options() const { return options_; }
  int64_t eval_batch() const { return eval_batch_; }
  bool has_eval() const { return eval_batch_ > 0; }

  // The planned graph of a shape, built when it is first asked for, with the units trained that are
  // marked so; the reference stays valid until plan_graphs() or limit_tokens(), or until
  // take_choice() returns its choice.
  const StepGraph& step(StepKind kind, const StepShape& shape);
  // Those of the largest shapes.
  const StepGraph& update_step() { return step(StepKind::update, options_.shape); }
  // Builds, rewrites and plans the update step anew, as a schedule does at every step.
  StepGraph rebuild_update_step() const;
  // The largest of every kind that the run executes; all graphs share one arena. With a schedule:
  // of the choice that needs most (largest_choice.h).
  std::vector<const StepGraph*> steps();

  // Texts are no longer than this: less is planned than the recipe's data.max_length asks for.
  void limit_tokens(int64_t longest);
  // Forgets all graphs and plans the largest anew, after a pass has changed its mind
  // (PassManager::on). With a schedule, the choice that needs most is then the present one.
  void plan_graphs();
  // After a schedule has marked other units (PassManager::on): step() is of this choice from now
  // on. Graphs of the last few choices are kept, at least of the present one and the one before.
  // Returns the choice whose graphs are gone.
  std::optional<int64_t> take_choice();
  // The number of the choice that graphs of a kind belong to; always the same where no unit is
  // scheduled and in evaluation.
  int64_t choice(StepKind kind) const { return kind == StepKind::eval ? kNoChoice : choice_; }

  // What each pass was about to change, one line each.
  std::vector<std::string> preview();
  // With the pass table; the predicted peak is what the executor will allocate.
  MemoryReport memory();

 private:
  static constexpr int64_t kNoChoice = 0;
  static constexpr int64_t kLargest = 1;
  static constexpr size_t kKeptChoices = 4;

  struct GraphKey {
    int64_t choice = kNoChoice;
    StepKind kind = StepKind::update;
    StepShape shape;
    auto operator<=>(const GraphKey&) const = default;  // NOLINT(modernize-use-nullptr)
  };
  struct Choice {
    int64_t id = kNoChoice;
    std::vector<SlotId> trained;
  };

  StepGraph build(StepKind kind, const StepShape& shape) const;
  std::vector<SlotId> trained_units() const;
  void plan_largest_choice();

  const recipe::Recipe& recipe_;
  DeviceKind device_;
  nlohmann::json config_;
  SlotTable slots_;
  std::unique_ptr<nn::Model> model_;
  PassManager passes_;
  std::unique_ptr<Optimizer> optimizer_;
  StepOptions options_;
  int64_t eval_batch_ = 0;  // 0: the run never evaluates
  std::map<GraphKey, StepGraph> graphs_;
  int64_t choice_ = kNoChoice;  // the present one
  int64_t last_id_ = kLargest;
  std::vector<SlotId> largest_;  // the units of kLargest
  std::vector<Choice> choices_;  // other than the largest, the latest first
  std::vector<std::string> model_preview_;
  std::vector<PassReport> model_reports_;
};

}  // namespace lithe
