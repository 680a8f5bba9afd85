// Pointwise kernels over tensors of one size: y[i] = f(a[i]) or f(a[i], b[i]). y may be a or b.
// Device-only.
#pragma once

#include "tensor/ops/cuda_vector.h"

namespace lithe::device {

inline constexpr int kMapThreads = 256;

// Loads in flight a thread: enough to hide memory latency at full occupancy.
inline constexpr int kMapUnroll = 2;

// From the end to the beginning: the end of what the kernel before has written is still in the
// cache, and so is the beginning for the kernel after.
__device__ inline int64_t last_block_first() {
  return static_cast<int64_t>(gridDim.x) - 1 - static_cast<int64_t>(blockIdx.x);
}

template <int kVector, typename F, typename Y, typename A>
__global__ void __launch_bounds__(kMapThreads) map_kernel(int64_t n, F f, Y* y, const A* a) {
  const int64_t first = (last_block_first() * kMapUnroll * kMapThreads + threadIdx.x) * kVector;
  constexpr int64_t kStep = int64_t{kMapThreads} * kVector;
  if (first + (kMapUnroll - 1) * kStep + kVector <= n) {
    Pack<A, kVector> in[kMapUnroll];
#pragma unroll
    for (int u = 0; u < kMapUnroll; ++u) {
      in[u] = load<kVector>(a + first + u * kStep);
    }
#pragma unroll
    for (int u = 0; u < kMapUnroll; ++u) {
      Pack<Y, kVector> out;
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        out.at[j] = f(in[u].at[j]);
      }
      store(y + first + u * kStep, out);
    }
    return;
  }
  for (int u = 0; u < kMapUnroll; ++u) {
    for (int64_t i = first + u * kStep; i < first + u * kStep + kVector && i < n; ++i) {
      y[i] = f(a[i]);
    }
  }
}

template <int kVector, typename F, typename Y, typename A, typename B>
__global__ void __launch_bounds__(kMapThreads)
    map_kernel(int64_t n, F f, Y* y, const A* a, const B* b) {
  const int64_t first = (last_block_first() * kMapUnroll * kMapThreads + threadIdx.x) * kVector;
  constexpr int64_t kStep = int64_t{kMapThreads} * kVector;
  if (first + (kMapUnroll - 1) * kStep + kVector <= n) {
    Pack<A, kVector> in_a[kMapUnroll];
    Pack<B, kVector> in_b[kMapUnroll];
#pragma unroll
    for (int u = 0; u < kMapUnroll; ++u) {
      in_a[u] = load<kVector>(a + first + u * kStep);
      in_b[u] = load<kVector>(b + first + u * kStep);
    }
#pragma unroll
    for (int u = 0; u < kMapUnroll; ++u) {
      Pack<Y, kVector> out;
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        out.at[j] = f(in_a[u].at[j], in_b[u].at[j]);
      }
      store(y + first + u * kStep, out);
    }
    return;
  }
  for (int u = 0; u < kMapUnroll; ++u) {
    for (int64_t i = first + u * kStep; i < first + u * kStep + kVector && i < n; ++i) {
      y[i] = f(a[i], b[i]);
    }
  }
}

// Launches the above; the narrowest type moves 16 bytes at a time.
template <typename F, typename Y, typename... In>
void map(const KernelArgs& args, int64_t n, F f, Y* y, const In*... in) {
  if (n == 0) {
    return;
  }
  constexpr size_t kSmallest = std::min({sizeof(Y), sizeof(In)...});
  constexpr int kVector = static_cast<int>(16 / kSmallest);
  const unsigned blocks = blocks_for(n, int64_t{kMapUnroll} * kMapThreads * kVector);
  map_kernel<kVector><<<blocks, kMapThreads, 0, stream_of(args)>>>(n, f, y, in...);
  check_launch(args.op);
}

}  // namespace lithe::device
