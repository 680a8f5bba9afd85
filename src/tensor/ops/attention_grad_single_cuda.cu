// Attention's backward pass in fp32.
#include "tensor/ops/attention_backward_launch_cuda.h"

namespace lithe::attention_cuda_kernels {

void backward_single(const KernelArgs& args, const Geometry& geometry, bool tf32) {
  if (tf32) {
    launch_backward<device::SingleProduct<false>>(args, geometry);
  } else {
    launch_backward<device::SingleProduct<true>>(args, geometry);
  }
}

}  // namespace lithe::attention_cuda_kernels
