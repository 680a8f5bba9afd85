// Static freezing: the chosen parameters get no gradient and no update. What that saves is derived by the
// gradient builder and the planner (specs/slimfit.md 1.3), never declared here.
#pragma once

#include "tensor/graph/pass.h"

namespace lithe {

extern const PassKind freeze_pass;

}  // namespace lithe
