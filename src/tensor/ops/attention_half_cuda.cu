// Attention's forward pass in bf16 and fp16.
#include "tensor/ops/attention_forward_cuda.h"

namespace lithe::attention_cuda_kernels {

void forward_half(const KernelArgs& args, const Geometry& geometry) {
  if (args.in[0].dtype == DType::bf16) {
    launch_forward<device::HalfProduct<bf16>>(args, geometry);
  } else {
    launch_forward<device::HalfProduct<f16>>(args, geometry);
  }
}

}  // namespace lithe::attention_cuda_kernels
