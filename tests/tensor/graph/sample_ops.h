// Small fp32 ops for graph tests: one for each way an output may share memory.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe::test {

extern const OpDef copy_op;     // y = x, no sharing
extern const OpDef twice_op;    // y = 2 x, in place; defined as sum(x, x)
extern const OpDef sum_op;      // y = a + b, in place of either
extern const OpDef flat_op;     // x as one dimension: a view
extern const OpDef scratch_op;  // y = x + 1 by way of a workspace
extern const OpDef split_op;    // x + 1 and x - 1, each may take x's place
extern const OpDef bump_op;     // slot += x: overwrites its first input
extern const OpDef opaque_op;   // y = x, without a gradient rule

// What each op computes on vectors, for interpreters.
inline float twice(float x) { return 2 * x; }

}  // namespace lithe::test
