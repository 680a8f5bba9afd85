// Attention's backward pass in fp32 from int8 codes.
#include "tensor/ops/attention_backward_launch_cuda.h"
#include "tensor/ops/attention_coded_rows_cuda.h"

namespace lithe::attention_cuda_kernels {

void backward_single(const KernelArgs& args, const Geometry& geometry, bool tf32,
                     const CodedRows& q, const CodedRows& k, const CodedRows& v) {
  if (tf32) {
    launch_backward<device::SingleProduct<false>>(args, geometry, q, k, v);
  } else {
    launch_backward<device::SingleProduct<true>>(args, geometry, q, k, v);
  }
}

}  // namespace lithe::attention_cuda_kernels
