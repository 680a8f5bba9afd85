// Attention's forward pass in fp32.
#include "tensor/ops/attention_forward_cuda.h"

namespace lithe::attention_cuda_kernels {

void forward_single(const KernelArgs& args, const Geometry& geometry, bool tf32) {
  if (tf32) {
    launch_forward<device::SingleProduct<false>>(args, geometry);
  } else {
    launch_forward<device::SingleProduct<true>>(args, geometry);
  }
}

}  // namespace lithe::attention_cuda_kernels
