// Sums and other joins over the threads of a warp or a block, in a fixed order. Device-only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lithe::device {

inline constexpr int kWarp = 32;

struct Sum {
  template <typename A>
  __device__ A operator()(A a, A b) const {
    return a + b;
  }
};
// NaN never wins, as in the CPU's softmax; the exponentials that follow carry it.
struct Largest {
  template <typename A>
  __device__ A operator()(A a, A b) const {
    return fmax(a, b);
  }
};

// Every thread of the warp gets the result; `join` is commutative, so all get the same bits.
template <typename A, typename Join>
__device__ inline A warp_reduce(A value, Join join) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = join(value, __shfl_xor_sync(0xffffffffu, value, step));
  }
  return value;
}

// Over kThreads threads: one warp, or the whole block, each of whose threads must take part.
template <int kThreads, typename A, typename Join>
__device__ inline A group_reduce(A value, Join join) {
  value = warp_reduce(value, join);
  if constexpr (kThreads > kWarp) {
    constexpr int kWarps = kThreads / kWarp;
    __shared__ A of_warp[kWarps];
    if (threadIdx.x % kWarp == 0) {
      of_warp[threadIdx.x / kWarp] = value;
    }
    __syncthreads();
    value = of_warp[0];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      value = join(value, of_warp[w]);
    }
    __syncthreads();  // the next reduction writes there again
  }
  return value;
}

}  // namespace lithe::device
