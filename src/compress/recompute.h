// Recompute (activation checkpointing): what a region's forward left for backward is dropped and
// computed again just before backward needs it, from the region's inputs. Gradients are bit-equal.
#pragma once

#include "tensor/graph/pass.h"

namespace lithe {

extern const PassKind recompute_pass;

}  // namespace lithe
