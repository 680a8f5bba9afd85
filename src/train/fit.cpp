#include "train/fit.h"

#include <algorithm>
#include <numeric>

#include "report/units.h"

namespace lithe {
namespace {

// The largest half, quarter, ... of the batch that fits.
std::string smaller_batch(Experiment& experiment, int64_t available) {
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
    int64_t arena = experiment.step(StepKind::update, shape).plan.arena_bytes;
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

}  // namespace

void check_fits(Experiment& experiment, const DeviceMemory& memory) {
  // Without the pass table, for which other graphs would be built.
  const MemoryReport report = memory_report(experiment.slots(), experiment.steps());
  const int64_t available = memory.available_bytes();
  if (report.predicted_peak_bytes <= available) {
    return;
  }
  std::string largest;
  for (const PlannedValue* v : largest_at_peak(report, 3)) {
    largest += fmt::format("{}{} {}", largest.empty() ? "" : ", ", v->name, format_bytes(v->bytes));
  }
  throw MemoryError(
      "memory",
      "the run needs {}, {} has {} free; the largest values at the peak are {}; {}; or switch on "
      "recompute, or freeze more",
      format_bytes(report.predicted_peak_bytes), memory.description(), format_bytes(available),
      largest, smaller_batch(experiment, available));
}

}  // namespace lithe
