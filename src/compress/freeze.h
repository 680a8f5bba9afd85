// Freezing: the chosen parameters get no gradient and no update. What that saves is derived by the
// gradient builder and the planner, never declared here: without dW = dyᵀ x nobody reads x in
// backward (SlimFit, arXiv 2305.18513).
//
// Static parameters (layers, patterns, all_but) stay frozen for the whole run. With a schedule, a
// fraction of the remaining units (freeze_units.h) is frozen as well, another one in each step
// (freeze_schedule.h). Freezing is strict: a unit that is not trained keeps its weight, its
// optimizer state and its count of steps as they are. With legacy_momentum it is updated as with a
// gradient of zero once it has been trained, which is what the paper's code did under PyTorch 1.
#pragma once

#include "tensor/graph/pass.h"

namespace lithe {

extern const PassKind freeze_pass;

}  // namespace lithe
