// How CPU kernels share work: contiguous ranges by thread, so results do not depend on scheduling.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace lithe {

// Below this many elements a parallel region costs more than it saves.
inline constexpr int64_t kParallelGrain = 16384;

// Calls body(begin, end) on contiguous ranges of [0, n); `cost` is the work of one item in
// elements. The split depends on n and the number of threads only.
template <typename Body>
void parallel_for(int64_t n, int64_t cost, Body&& body) {
  const int threads = omp_get_max_threads();
  if (n <= 1 || threads == 1 || n * std::max<int64_t>(cost, 1) < kParallelGrain) {
    if (n > 0) {
      body(int64_t{0}, n);
    }
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int64_t t = omp_get_thread_num();
    const int64_t count = omp_get_num_threads();
    const int64_t begin = n * t / count;
    const int64_t end = n * (t + 1) / count;
    if (begin < end) {
      body(begin, end);
    }
  }
}

}  // namespace lithe
