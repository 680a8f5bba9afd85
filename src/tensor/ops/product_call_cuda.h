// From the call of a kernel to that of the library of products. Device-only.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/ops/blas_cuda.h"
#include "tensor/ops/cuda_vector.h"

namespace lithe::device {

inline void zero(const KernelArgs& args, const TensorRef& t) {
  cuda_check(cudaMemsetAsync(t.data, 0, static_cast<size_t>(t.bytes()), stream_of(args)), args.op,
             "clearing");
}

inline blas_cuda::Launch launch_of(const KernelArgs& args) {
  return {args.workspace, args.workspace_bytes, stream_of(args), args.op};
}

// TF32 changes products of fp32 only: others have one plan, whatever it says.
inline Numerics numerics_of(const KernelArgs& args) {
  const bool tf32 = args.numerics.tf32 && args.out[0].dtype == DType::f32;
  return {tf32, args.numerics.deterministic};
}

inline bool is_empty(const blas_cuda::Gemm& g) {
  return g.m == 0 || g.n == 0 || g.k == 0 || g.batch == 0;
}

// The distance between neighbours in elements; 0 where it is not one, or they overlap.
inline int64_t distance_of(std::span<const TensorRef> tensors) {
  const auto address = [&](size_t i) { return reinterpret_cast<intptr_t>(tensors[i].data); };
  const int64_t bytes = address(1) - address(0);
  for (size_t i = 1; i < tensors.size(); ++i) {
    if (address(i) - address(i - 1) != bytes) {
      return 0;
    }
  }
  const int64_t size = byte_size(tensors[0].dtype, {1});
  return bytes >= tensors[0].bytes() && bytes % size == 0 ? bytes / size : 0;
}

}  // namespace lithe::device
