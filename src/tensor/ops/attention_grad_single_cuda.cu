// Attention's backward pass in fp32.
#include "tensor/ops/attention_backward_launch_cuda.h"

namespace lithe::attention_cuda_kernels {

void backward_single(const KernelArgs& args, const Geometry& geometry, bool tf32) {
  const auto rows = [&](size_t i) { return PlainRows<float>{args.in[i].as<const float>()}; };
  if (tf32) {
    launch_backward<device::SingleProduct<false>>(args, geometry, rows(0), rows(1), rows(2));
  } else {
    launch_backward<device::SingleProduct<true>>(args, geometry, rows(0), rows(1), rows(2));
  }
}

}  // namespace lithe::attention_cuda_kernels
