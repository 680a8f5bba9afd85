// Static freezing: the chosen parameters get no gradient and no update. What that saves is derived
// by the gradient builder and the planner, never declared here: without dW = dyᵀ x nobody reads x
// in backward (SlimFit, arXiv 2305.18513).
#pragma once

#include "tensor/graph/pass.h"

namespace lithe {

extern const PassKind freeze_pass;

}  // namespace lithe
