// For how large a GPU the CUDA kernels cut their work.
#pragma once

#include <cstdint>

namespace lithe {

// Multiprocessors of an H100 or H200. A constant, because the order of sums and the planned
// workspace follow from it: neither bits nor plans depend on the machine. Any number is right.
inline constexpr int64_t kProcessors = 132;

}  // namespace lithe
