// Where the next step's inputs wait while a step runs.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "train/step_graph.h"

namespace lithe {

// What a step reads besides slots, packed one behind the other: (value, offset).
struct InputLayout {
  explicit InputLayout(const StepGraph& step);
  std::vector<std::pair<ValueId, int64_t>> at;
  int64_t bytes = 0;
};

// Bytes of the block on the device into which inputs are copied while the step before runs; 0 where
// there is none: on a device that works at once, and for inputs that are large but cost little time
// beside the step's arithmetic. Those go straight to their places between the steps, and the peak
// has no room for them twice.
int64_t input_stage_bytes(const StepGraph& step, DeviceKind device);
// One block for all of them.
int64_t input_stage_bytes(std::span<const StepGraph* const> steps, DeviceKind device);

// The rule: bytes of inputs, and the step's operations of 16 bits, of TF32 and of all other kinds.
struct StepWork {
  double half = 0;
  double tf32 = 0;
  double other = 0;
};
bool is_worth_staging(int64_t bytes, const StepWork& work);

}  // namespace lithe
