// The choice among a library's algorithms for one product. Device-only.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "tensor/ops/algorithm_cache.h"

namespace lithe::blas_cuda {

// Algorithms are numbered as the library ranks them; kRival is doing without them.
inline constexpr int kRival = -1;

struct Contest {
  std::string problem;                 // its name in the cache
  std::span<const std::string> names;  // of the algorithms, as the cache keeps them
  std::function<bool(int)> run;        // false: refused after all
  std::function<void()> rival;         // may be empty: it is not measured
  bool may_do_without = false;         // whether kRival is an answer
  cudaStream_t stream = nullptr;
  std::string_view op;
};

// The fastest of a contest: the median of a few repeats, about 20 ms in all.
int fastest(const Contest& contest);

// The caches of the devices, a file for each kind of GPU and version of the library.
class Choices {
 public:
  // What is kept for the contest's problem, else what is measured and kept; else 0, the library's
  // first. `may_measure`: it may be run now.
  int choose(const Contest& contest, int device, bool may_measure);

 private:
  AlgorithmCache& cache_of(int device, std::string_view op);

  std::map<int, AlgorithmCache> caches_;
};

}  // namespace lithe::blas_cuda
