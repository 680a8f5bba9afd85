// The refusing twin of memory_cuda.cu, linked where nvcc was not found.
#include "tensor/core/error.h"
#include "tensor/core/memory.h"

namespace lithe {

std::shared_ptr<DeviceMemory> cuda_memory(int index) {
  throw DeviceError("device",
                    "cuda:{} was asked for, but this build has no CUDA: install nvcc and run "
                    "./lithe build again (the kernels are for H100 and H200), or use --device cpu",
                    index);
}

bool cuda_available() { return false; }
int cuda_device_count() { return 0; }

}  // namespace lithe
