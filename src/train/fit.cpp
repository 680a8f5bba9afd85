#include "train/fit.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "report/units.h"
#include "train/input_stage.h"
#include "train/options.h"
#include "train/step_runner.h"

namespace lithe {
namespace {

// The largest half, quarter, ... of the batch that fits.
std::string smaller_batch(Experiment& experiment, const DeviceMemory& memory) {
  const int64_t available = memory.available_bytes();
  const StepOptions& options = experiment.step_options();
  const SlotTable& slots = experiment.slots();
  const MemoryByClass persistent = slot_bytes(slots);
  int64_t state = std::accumulate(persistent.begin(), persistent.end(), int64_t{0});
  if (options.accumulate == 1) {
    // Micro-batches need a sum for each gradient.
    for (SlotId s = 0; s < slots.size(); ++s) {
      state += slots[s].trainable ? byte_size(slots[s].dtype, slots[s].shape) : 0;
    }
  }
  for (int64_t parts = 2; options.shape.batch / parts >= 1; parts *= 2) {
    const int64_t batch = options.shape.batch / parts;
    const StepShape shape{batch, options.shape.tokens};
    const StepGraph& update = experiment.step(StepKind::update, shape);
    int64_t arena = update.plan.arena_bytes + input_stage_bytes(update, memory.kind());
    if (experiment.has_eval()) {
      const StepShape eval{std::min(batch, experiment.eval_batch()), shape.tokens};
      arena = std::max(arena, experiment.step(StepKind::eval, eval).plan.arena_bytes);
    }
    if (state + arena <= available) {
      const std::string eval =
          experiment.has_eval()
              ? fmt::format(" eval.batch_size={}", std::min(batch, experiment.eval_batch()))
              : "";
      return fmt::format(
          "train.batch_size={} train.accumulate={}{} needs about {} for the same update", batch,
          parts * options.accumulate, eval, format_bytes(state + arena));
    }
  }
  return fmt::format("not even a batch of one fits, since weights and state alone take {}",
                     format_bytes(state));
}

int block_count(const nn::Model& model) {
  int count = 0;
  model.visit([&](const nn::Module& module) { count = std::max(count, module.block() + 1); });
  return count;
}

// Of the passes that the recipe leaves off, the one that fits at the least cost: recompute changes
// nothing but time, and least where fewest blocks are computed again; freezing changes what is
// trained.
std::string fitting_pass(Experiment& experiment, const DeviceMemory& memory) {
  const recipe::Recipe& recipe = experiment.recipe();
  const int blocks = block_count(experiment.model());
  std::vector<std::string> changes;
  if (!recipe.enabled("recompute") && blocks > 0) {
    for (int parts : {4, 2}) {
      if (blocks / parts > 0) {
        changes.push_back(fmt::format("recompute.blocks=0-{}", blocks / parts - 1));
      }
    }
    changes.emplace_back("recompute.blocks=all");
  }
  if (!recipe.enabled("freeze") && blocks > 1) {
    changes.push_back(fmt::format("freeze.layers=0-{}", blocks - 1 - blocks / 4));
  }
  const int64_t available = memory.available_bytes();
  for (const std::string& change : changes) {
    const recipe::Recipe other =
        recipe::Recipe::parse(recipe.resolved(), "recipe", train_options(), std::array{change});
    Experiment changed(other, memory.kind());
    changed.limit_tokens(experiment.step_options().shape.tokens);
    const int64_t needed =
        memory_report(changed.slots(), changed.steps(), memory.kind()).predicted_peak_bytes;
    if (needed <= available) {
      return fmt::format("with {} it needs {}", change, format_bytes(needed));
    }
  }
  return "no pass alone makes it fit";
}

}  // namespace

void check_fits(Experiment& experiment, const DeviceMemory& memory) {
  // Without the pass table, for which other graphs would be built.
  const MemoryReport report = memory_report(experiment.slots(), experiment.steps(), memory.kind());
  const int64_t available = memory.available_bytes();
  if (report.predicted_peak_bytes <= available) {
    return;
  }
  std::string largest;
  for (const PlannedValue* v : largest_at_peak(report, 3)) {
    largest += fmt::format("{}{} {}", largest.empty() ? "" : ", ", v->name, format_bytes(v->bytes));
  }
  throw MemoryError(
      "memory", "the run needs {}, {} has {} free; the largest values at the peak are {}; {}; {}",
      format_bytes(report.predicted_peak_bytes), memory.description(), format_bytes(available),
      largest, fitting_pass(experiment, memory), smaller_batch(experiment, memory));
}

}  // namespace lithe
