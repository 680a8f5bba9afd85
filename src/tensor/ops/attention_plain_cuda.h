// Attention without tensor cores, for any type and head dim: a warp takes a row, a lane its every
// 32nd element. Right, not fast. Device-only.
#pragma once

#include "tensor/ops/attention_cuda.h"
#include "tensor/ops/cuda_reduce.h"

namespace lithe::attention_cuda_kernels {

inline constexpr int kPlainRows = 4;  // of a block
inline constexpr int kPlainThreads = 32 * kPlainRows;

template <typename A, typename T>
__device__ inline A dot(const T* x, const T* y, int dim) {
  A sum = 0;
  for (int i = 0; i < dim; ++i) {
    sum += device::widen<A>(x[i]) * device::widen<A>(y[i]);
  }
  return sum;
}

// The `index`th of a warp's vectors of `dim` sums in shared memory; a lane only touches its own.
template <typename A>
struct PlainSums {
  __device__ explicit PlainSums(int dim, int index = 0) : dim(dim) {
    at = reinterpret_cast<A*>(shared_memory) +
         (static_cast<int64_t>(index) * kPlainRows + threadIdx.x / 32) * dim;
  }

  // Of a block's shared memory, for `vectors` a warp; throws ShapeError where it does not hold
  // them.
  static size_t bytes(const KernelArgs& args, int64_t dim, int64_t vectors) {
    constexpr int64_t kMost = 227 * 1024;
    const int64_t bytes = vectors * kPlainRows * dim * static_cast<int64_t>(sizeof(A));
    if (bytes > kMost) {
      throw ShapeError(args.op,
                       "a head dim of {} needs {} bytes of shared memory, {} are there; "
                       "use a smaller one",
                       dim, bytes, kMost);
    }
    return static_cast<size_t>(bytes);
  }

  // Calls f(column) for the lane's columns.
  template <typename F>
  __device__ void each(F&& f) const {
    for (int i = static_cast<int>(threadIdx.x % 32); i < dim; i += 32) {
      f(i);
    }
  }
  __device__ void clear() const {
    each([&](int i) { at[i] = 0; });
  }
  __device__ void shrink(A factor) const {
    each([&](int i) { at[i] *= factor; });
  }
  template <typename T>
  __device__ void add(A weight, const T* row) const {
    each([&](int i) { at[i] += weight * device::widen<A>(row[i]); });
  }
  template <typename T>
  __device__ void store(A factor, T* row) const {
    each([&](int i) { row[i] = device::narrow<T>(at[i] * factor); });
  }

  int dim;
  A* at;
};

}  // namespace lithe::attention_cuda_kernels
