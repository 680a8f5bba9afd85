// How group norm's CUDA kernels cut the work, shared with the planned workspace.
#pragma once

#include "tensor/core/shape.h"

namespace lithe {

// A group of up to this many bytes is kept in a block's shared memory: it is read once, and two
// blocks fit on a multiprocessor.
inline constexpr int64_t kGroupNormShared = int64_t{96} << 10;

// Ranges of positions of each sample of x [B, ..., C] that are summed by blocks of their own; 0: a
// block takes a whole group. `tensors` of x's size are read (x, or dy and x). Defined in
// group_norm.cpp.
int64_t group_norm_chunks(const Shape& x, int groups, DType dtype, int tensors);

}  // namespace lithe
