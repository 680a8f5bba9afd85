// Checks of CUDA's return codes. Device-only: included by *.cu files.
#pragma once

#include <cuda_runtime.h>

#include <string_view>

#include "tensor/core/error.h"

namespace lithe {

// Throws DeviceError "[where] what: CUDA's own words".
inline void cuda_check(cudaError_t status, std::string_view where, std::string_view what) {
  if (status != cudaSuccess) {
    throw DeviceError(where, "{} failed: {} ({}); see nvidia-smi, or use --device cpu", what,
                      cudaGetErrorString(status), cudaGetErrorName(status));
  }
}

// Behind every launch: a bad configuration is reported here, a fault in the kernel at the next
// synchronisation.
inline void check_launch(std::string_view op) { cuda_check(cudaGetLastError(), op, "the launch"); }

}  // namespace lithe
