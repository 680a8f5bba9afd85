// Attention's backward pass in bf16 and fp16.
#include "tensor/ops/attention_backward_launch_cuda.h"

namespace lithe::attention_cuda_kernels {

void backward_half(const KernelArgs& args, const Geometry& geometry) {
  if (args.in[0].dtype == DType::bf16) {
    launch_backward<device::HalfProduct<bf16>>(args, geometry);
  } else {
    launch_backward<device::HalfProduct<f16>>(args, geometry);
  }
}

}  // namespace lithe::attention_cuda_kernels
