#include "tensor/ops/blas.h"

#include <cblas.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "tensor/core/error.h"

// Weak, so that the program also links with another BLAS.
extern "C" char* openblas_get_corename(void) __attribute__((weak));

namespace lithe::blas {
namespace {

// Below this many multiplications a product does not fill several threads.
constexpr int64_t kSmallProduct = int64_t{1} << 24;

int narrow(int64_t size) {
  if (size < 0 || size > std::numeric_limits<int>::max()) {
    throw ShapeError("blas",
                     "a matrix of {} rows, columns or stride exceeds the library's {}; split it",
                     size, std::numeric_limits<int>::max());
  }
  return static_cast<int>(size);
}

struct Sizes {
  explicit Sizes(const Gemm& g)
      : ta(g.transpose_a ? CblasTrans : CblasNoTrans),
        tb(g.transpose_b ? CblasTrans : CblasNoTrans),
        m(narrow(g.m)),
        n(narrow(g.n)),
        k(narrow(g.k)),
        lda(narrow(std::max<int64_t>(g.lda, 1))),
        ldb(narrow(std::max<int64_t>(g.ldb, 1))),
        ldc(narrow(std::max<int64_t>(g.ldc, 1))) {}
  bool empty() const { return m == 0 || n == 0; }

  CBLAS_TRANSPOSE ta, tb;
  int m, n, k, lda, ldb, ldc;
};

// Libraries differ on k == 0, some return without touching C.
template <typename T>
void scale_only(const Sizes& s, double beta, T* c) {
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t j = 0; j < s.n; ++j) {
      T& value = c[i * s.ldc + j];
      value = beta == 0 ? T(0) : value * static_cast<T>(beta);
    }
  }
}

void call(const Sizes& s, double alpha, const float* a, const float* b, double beta, float* c) {
  cblas_sgemm(CblasRowMajor, s.ta, s.tb, s.m, s.n, s.k, static_cast<float>(alpha), a, s.lda, b,
              s.ldb, static_cast<float>(beta), c, s.ldc);
}
void call(const Sizes& s, double alpha, const double* a, const double* b, double beta, double* c) {
  cblas_dgemm(CblasRowMajor, s.ta, s.tb, s.m, s.n, s.k, alpha, a, s.lda, b, s.ldb, beta, c, s.ldc);
}

template <typename T>
void run(const Sizes& s, double alpha, const T* a, const T* b, double beta, T* c) {
  if (s.empty()) {
    return;
  }
  if (s.k == 0) {
    scale_only(s, beta, c);
    return;
  }
  call(s, alpha, a, b, beta, c);
}

template <typename T>
void run_batched(const Gemm& g, const Batch& batch, double alpha, const T* a, const T* b,
                 double beta, T* c) {
  const Sizes s(g);
  const double work = static_cast<double>(g.m) * static_cast<double>(g.n) *
                      static_cast<double>(std::max<int64_t>(g.k, 1));
  const bool side_by_side =
      batch.count >= omp_get_max_threads() && work <= static_cast<double>(kSmallProduct);
#pragma omp parallel for schedule(static) if (side_by_side)
  for (int64_t i = 0; i < batch.count; ++i) {
    run(s, alpha, a + i * batch.stride_a, b + i * batch.stride_b, beta, c + i * batch.stride_c);
  }
}

}  // namespace

void gemm(const Gemm& g, double alpha, const float* a, const float* b, double beta, float* c) {
  run(Sizes(g), alpha, a, b, beta, c);
}
void gemm(const Gemm& g, double alpha, const double* a, const double* b, double beta, double* c) {
  run(Sizes(g), alpha, a, b, beta, c);
}
void gemm_batched(const Gemm& g, const Batch& batch, double alpha, const float* a, const float* b,
                  double beta, float* c) {
  run_batched(g, batch, alpha, a, b, beta, c);
}
void gemm_batched(const Gemm& g, const Batch& batch, double alpha, const double* a, const double* b,
                  double beta, double* c) {
  run_batched(g, batch, alpha, a, b, beta, c);
}

}  // namespace lithe::blas

namespace lithe {

void select_blas_core(int argc, char** argv) {
#if defined(__x86_64__)
  // A release of OpenBLAS that is older than the processor may fall back to AVX2 kernels, which on
  // Zen 5 run at about half the speed of the AVX-512 ones, or even to SSE (Prescott), at an eighth.
  // The library reads the variable while it is loaded, before main, so only a new start of the
  // program can change the choice. 0.3.21 chooses well by itself on Zen 5; what it then slows down
  // is a variable set in the environment, and that is the user's wish.
  constexpr const char* kCore = "OPENBLAS_CORETYPE";
  constexpr const char* kDone = "LITHE_BLAS_CORE_SELECTED";  // against endless restarts
  if (argc < 1 || openblas_get_corename == nullptr || std::getenv(kCore) != nullptr ||
      std::getenv(kDone) != nullptr) {
    return;
  }
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512cd");
  const std::string_view core = openblas_get_corename();
  if (avx512 && core != "SkylakeX" && core != "Cooperlake" && core != "Sapphirerapids" &&
      core != "SapphireRapids") {
    setenv(kCore, "SkylakeX", 1);
    setenv(kDone, "1", 1);
    execv("/proc/self/exe", argv);  // comes back only when it fails; the slow kernels still work
    unsetenv(kCore);
  }
#else
  (void)argc;
  (void)argv;
#endif
}

}  // namespace lithe
