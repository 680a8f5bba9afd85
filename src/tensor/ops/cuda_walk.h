// y[i] = f(a[walk a], ...): pointwise kernels whose operands are broadcast or permuted.
// Device-only.
#pragma once

#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/strided.h"

namespace lithe::device {

inline constexpr int kWalkThreads = 256;

// One access of kVector elements a thread. Along the last dimension an operand's stride is 1, or 0
// where it repeats one element, or anything when kVector is 1.
template <int kVector, typename Index, int kOperands>
__device__ inline void offsets_at(const Strided<kOperands>& walk, Index position,
                                  int64_t (&offsets)[kOperands]) {
#pragma unroll
  for (int k = 0; k < kOperands; ++k) {
    offsets[k] = 0;
  }
  for (int d = walk.rank - 1; d >= 0; --d) {
    Index index = position;
    if (d > 0) {
      const Index size = static_cast<Index>(walk.size[d]);
      const Index rest = position / size;
      index = position - rest * size;
      position = rest;
    }
#pragma unroll
    for (int k = 0; k < kOperands; ++k) {
      offsets[k] += static_cast<int64_t>(index) * walk.stride[d][k];
    }
  }
}

template <int kVector, typename T>
__device__ inline Pack<T, kVector> load_or_repeat(const T* from, int64_t stride) {
  if (kVector == 1 || stride != 0) {
    return load<kVector>(from);
  }
  Pack<T, kVector> out;
  const T value = *from;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    out.at[j] = value;
  }
  return out;
}

template <int kVector, typename Index, typename F, typename T>
__global__ void __launch_bounds__(kWalkThreads)
    walk_kernel(const Strided<1> walk, int64_t n, F f, T* y, const T* a) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kWalkThreads + threadIdx.x) * kVector;
  if (i >= n) {
    return;
  }
  int64_t at[1];
  offsets_at<kVector>(walk, static_cast<Index>(i), at);
  Pack<T, kVector> x = load_or_repeat<kVector>(a + at[0], walk.stride[walk.rank - 1][0]);
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    x.at[j] = f(x.at[j]);
  }
  store(y + i, x);
}

template <int kVector, typename Index, typename F, typename T>
__global__ void __launch_bounds__(kWalkThreads)
    walk_kernel(const Strided<2> walk, int64_t n, F f, T* y, const T* a, const T* b) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kWalkThreads + threadIdx.x) * kVector;
  if (i >= n) {
    return;
  }
  int64_t at[2];
  offsets_at<kVector>(walk, static_cast<Index>(i), at);
  const Pack<T, kVector> x = load_or_repeat<kVector>(a + at[0], walk.stride[walk.rank - 1][0]);
  const Pack<T, kVector> z = load_or_repeat<kVector>(b + at[1], walk.stride[walk.rank - 1][1]);
  Pack<T, kVector> out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    out.at[j] = f(x.at[j], z.at[j]);
  }
  store(y + i, out);
}

// Whether kVector elements may move at once: all rows and row starts are multiples of it.
template <int kOperands>
bool walks_in_packs(const Strided<kOperands>& walk, int vector) {
  if (walk.inner() % vector != 0) {
    return false;
  }
  for (int k = 0; k < kOperands; ++k) {
    const int64_t inner = walk.inner_stride()[k];
    if (inner != 0 && inner != 1) {
      return false;
    }
    for (int d = 0; inner == 1 && d < walk.rank - 1; ++d) {
      if (walk.stride[d][k] % vector != 0) {
        return false;
      }
    }
  }
  return true;
}

template <typename F, typename T, int kOperands, typename... In>
void map_walk(const KernelArgs& args, const Strided<kOperands>& walk, F f, T* y, const In*... in) {
  const int64_t n = walk.numel();
  if (n == 0) {
    return;
  }
  const auto launch = [&]<int kVector, typename Index>() {
    const unsigned blocks = blocks_for(n, int64_t{kWalkThreads} * kVector);
    walk_kernel<kVector, Index><<<blocks, kWalkThreads, 0, stream_of(args)>>>(walk, n, f, y, in...);
    check_launch(args.op);
  };
  const bool narrow_index = n <= INT32_MAX;
  if (walks_in_packs(walk, kWide<T>)) {
    narrow_index ? launch.template operator()<kWide<T>, uint32_t>()
                 : launch.template operator()<kWide<T>, uint64_t>();
  } else {
    narrow_index ? launch.template operator()<1, uint32_t>()
                 : launch.template operator()<1, uint64_t>();
  }
}

}  // namespace lithe::device
