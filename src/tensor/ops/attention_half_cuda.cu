// Attention's forward pass in bf16 and fp16.
#include "tensor/ops/attention_forward_cuda.h"
#include "tensor/ops/attention_warpgroup_forward_cuda.h"

namespace lithe::attention_cuda_kernels {
namespace {

template <typename T>
void forward(const KernelArgs& args, const Geometry& geometry) {
  if (attention_blocks::on_warpgroups(args.in[0].dtype, geometry.dim)) {
    launch_warpgroup_forward<T>(args, geometry);
  } else {
    launch_forward<device::HalfProduct<T>>(args, geometry);
  }
}

}  // namespace

void forward_half(const KernelArgs& args, const Geometry& geometry) {
  if (args.in[0].dtype == DType::bf16) {
    forward<bf16>(args, geometry);
  } else {
    forward<f16>(args, geometry);
  }
}

}  // namespace lithe::attention_cuda_kernels
