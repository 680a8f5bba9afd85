// Matrix products on cuBLASLt, for row-major matrices. Plans (layouts and the algorithm) are made
// once a shape and kept for the process. 16-bit products are summed in fp32, fp32 ones in fp32, or
// in TF32 where the graph allows it, fp64 ones in fp64. Device-only.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

#include "tensor/core/dtype.h"
#include "tensor/graph/op.h"

namespace lithe::blas_cuda {

// What one pass does beside the product.
enum class Epilogue : uint8_t {
  none,
  bias,       // adds a vector [n] to every row; not for fp64
  gelu_bias,  // that, kept as it is, and gelu_tanh of it; the library's GELU knows no other form
  row_sum,    // sums op(a) [m, k] along k into a vector [m]: with a = dyᵀ the gradient of a bias
};

// Of operands in bytes, as the arena's values have it.
inline constexpr int64_t kAlignment = 256;

// c [m, n] = alpha op(a) op(b) for each of `batch` products; strides in elements, 0 repeats a
// matrix. lda, ldb and ldc are the row lengths as stored.
struct Gemm {
  DType dtype = DType::f32;
  bool transpose_a = false;
  bool transpose_b = false;
  Epilogue epilogue = Epilogue::none;
  bool adds = false;      // + addend, laid out as c; without an epilogue only
  bool optional = false;  // the caller has another way, as for every epilogue but bias
  Numerics numerics;
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;
  int64_t batch = 1;
  int64_t stride_a = 0, stride_b = 0, stride_c = 0;
  int64_t stride_bias = 0;
  int64_t alignment_a = kAlignment;  // less where a is some columns of a larger matrix

  bool operator==(const Gemm& other) const;
};

// All aligned to kAlignment but for a, see Gemm.
struct Operands {
  const void* a = nullptr;
  const void* b = nullptr;
  const void* bias = nullptr;
  const void* addend = nullptr;    // may be c
  void* pre_activation = nullptr;  // of gelu_bias, laid out as c
  void* row_sum = nullptr;
  void* c = nullptr;
  double alpha = 1;
};

struct Launch {
  void* workspace = nullptr;  // may be null when its size is 0
  int64_t workspace_bytes = 0;
  cudaStream_t stream = nullptr;
  std::string_view op;  // for errors
};

// Sizes above 0. False, and nothing done, where the library has no kernel for the epilogue or a
// pass of its own is faster; none and a bias without a batch are always there unless `optional`.
bool gemm(const Gemm& shape, const Operands& operands, const Launch& launch);

// Chooses the algorithm of a shape by measuring those that the library proposes, once for all runs
// (algorithm_cache.h), and overwrites what the product writes. `rival` does the same work in passes
// of their own; it wins where it is faster. Without it, for small products and where the choice
// cannot be kept, the library's own first is taken: it is the same in every run.
void prepare(const Gemm& shape, const Operands& operands, const Launch& launch,
             const std::function<void()>& rival = {});

}  // namespace lithe::blas_cuda
