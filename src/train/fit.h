// Whether a planned run fits into a device's free memory, asked before anything is allocated.
#pragma once

#include "tensor/core/memory.h"
#include "train/experiment.h"

namespace lithe {

// Throws MemoryError with the largest values at the peak and what would fit: the cheapest pass, and
// the largest half, quarter, ... of the batch, with the micro-batches that make up for it.
void check_fits(Experiment& experiment, const DeviceMemory& memory);

}  // namespace lithe
