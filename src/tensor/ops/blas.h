// A thin layer over CBLAS: row-major products with 64-bit sizes, batches, and the choice of
// kernels.
#pragma once

#include <cstdint>

namespace lithe::blas {

// C [m, n] = alpha op(A) op(B) + beta C. `ld*`: elements between the rows of a matrix as it is
// stored.
struct Gemm {
  bool transpose_a = false;  // A is stored [k, m]
  bool transpose_b = false;  // B is stored [n, k]
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  int64_t lda = 0;
  int64_t ldb = 0;
  int64_t ldc = 0;
};

// Empty sums give beta C. Runs on one thread inside an OpenMP region, else on all. Throws
// ShapeError when a size does not fit the library's 32-bit integers.
void gemm(const Gemm& g, double alpha, const float* a, const float* b, double beta, float* c);
void gemm(const Gemm& g, double alpha, const double* a, const double* b, double beta, double* c);

// `count` products, the i-th on a + i * stride_a and so on (0: shared by all). Many small products
// run side by side on one thread each, few large ones one after the other on all threads.
struct Batch {
  int64_t count = 1;
  int64_t stride_a = 0;
  int64_t stride_b = 0;
  int64_t stride_c = 0;
};
void gemm_batched(const Gemm& g, const Batch& batch, double alpha, const float* a, const float* b,
                  double beta, float* c);
void gemm_batched(const Gemm& g, const Batch& batch, double alpha, const double* a, const double* b,
                  double beta, double* c);

}  // namespace lithe::blas

namespace lithe {

// Call first in main(): where OpenBLAS took kernels below what the processor can do, starts the
// program anew, once, with the faster ones. Does nothing with another BLAS, without AVX-512, or
// when OPENBLAS_CORETYPE is set.
void select_blas_core(int argc, char** argv);

}  // namespace lithe
