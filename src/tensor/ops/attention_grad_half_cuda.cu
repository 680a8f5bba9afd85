// Attention's backward pass in bf16 and fp16.
#include "tensor/ops/attention_backward_launch_cuda.h"
#include "tensor/ops/attention_warpgroup_backward_cuda.h"

namespace lithe::attention_cuda_kernels {
namespace {

template <typename T>
void backward(const KernelArgs& args, const Geometry& geometry) {
  if (attention_blocks::on_warpgroups(args.in[0].dtype, geometry.dim)) {
    launch_warpgroup_backward<T>(args, geometry);
  } else {
    const auto rows = [&](size_t i) { return PlainRows<T>{args.in[i].as<const T>()}; };
    launch_backward<device::HalfProduct<T>>(args, geometry, rows(0), rows(1), rows(2));
  }
}

}  // namespace

void backward_half(const KernelArgs& args, const Geometry& geometry) {
  if (args.in[0].dtype == DType::bf16) {
    backward<bf16>(args, geometry);
  } else {
    backward<f16>(args, geometry);
  }
}

}  // namespace lithe::attention_cuda_kernels
