// Matrix products on cuBLASLt, for row-major matrices. Plans (layouts and the algorithm that the
// library's heuristic ranks first) are made once a shape and kept for the process. TF32 is off:
// fp32 products are fp32, 16-bit ones are summed in fp32, fp64 ones in fp64. Device-only.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tensor/core/dtype.h"

namespace lithe::blas_cuda {

// c [m, n] = alpha op(a) op(b) for each of `batch` products; strides in elements, 0 repeats a
// matrix. lda, ldb and ldc are the row lengths as stored.
struct Gemm {
  DType dtype = DType::f32;
  bool transpose_a = false;
  bool transpose_b = false;
  bool biased = false;  // adds a vector [n] to every row; not for fp64
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;
  int64_t batch = 1;
  int64_t stride_a = 0, stride_b = 0, stride_c = 0;

  bool operator==(const Gemm&) const = default;
};

struct Operands {
  const void* a = nullptr;
  const void* b = nullptr;
  const void* bias = nullptr;
  void* c = nullptr;
  double alpha = 1;
};

// Sizes above 0. `workspace` may be null when its size is 0.
void gemm(const Gemm& shape, const Operands& operands, void* workspace, int64_t workspace_bytes,
          cudaStream_t stream, std::string_view op);

}  // namespace lithe::blas_cuda
