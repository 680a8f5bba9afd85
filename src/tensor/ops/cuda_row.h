// Kernels that need each row of a matrix [rows, size] as a whole (softmax, norms). A group of
// threads, one warp or one block, keeps a row in registers; longer rows are read again instead.
// Device-only.
#pragma once

#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/cuda_vector.h"

namespace lithe::device {

inline constexpr int kWarpsOfRowBlock = 4;

// kVector elements an access, kThreads threads a row, kElements of the row a thread; no elements:
// the row does not fit in registers.
template <int kV, int kT, int kE>
struct RowConfig {
  static constexpr int kVector = kV;
  static constexpr int kThreads = kT;
  static constexpr int kElements = kE;
  static constexpr int kBlock = kT == kWarp ? kWarp * kWarpsOfRowBlock : kT;
  static constexpr int kRowsOfBlock = kBlock / kT;
  static constexpr int kPacks = kE / kV;

  // The row of this thread's group.
  __device__ static int64_t row() {
    return static_cast<int64_t>(blockIdx.x) * kRowsOfBlock + threadIdx.x / kThreads;
  }
  __device__ static int lane() { return static_cast<int>(threadIdx.x % kThreads); }

  // Calls f(element in the thread's registers, first column) for each pack inside the row.
  template <typename F>
  __device__ static void for_packs(int64_t size, F&& f) {
    const int end = static_cast<int>(size);  // a row that fits in registers is short
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int column = (p * kThreads + lane()) * kVector;
      if (column < end) {
        f(p * kVector, column);
      }
    }
  }
  // Calls f(column) for each column of this thread, of a row of any size.
  template <typename F>
  __device__ static void for_columns(int64_t size, F&& f) {
    for (int64_t column = lane(); column < size; column += kThreads) {
      f(column);
    }
  }
};

// Calls f.operator()<Config>() with the configuration for rows of `size` elements of T. fp64, the
// oracle's type, always takes the general one.
template <typename T, typename F>
void dispatch_row(int64_t size, F&& f) {
  if constexpr (!std::is_same_v<T, double>) {
    constexpr int kV = kWide<T>;
    const bool wide = size % kV == 0;
    if (size <= 256) {
      return wide ? f.template operator()<RowConfig<kV, kWarp, 8>>()
                  : f.template operator()<RowConfig<1, kWarp, 8>>();
    }
    if (size <= 1024) {
      return wide ? f.template operator()<RowConfig<kV, kWarp, 32>>()
                  : f.template operator()<RowConfig<1, kWarp, 32>>();
    }
    if (size <= 2048) {
      return wide ? f.template operator()<RowConfig<kV, 256, 8>>()
                  : f.template operator()<RowConfig<1, 256, 8>>();
    }
    if (size <= 8192) {
      return wide ? f.template operator()<RowConfig<kV, 256, 32>>()
                  : f.template operator()<RowConfig<1, 256, 32>>();
    }
  }
  f.template operator()<RowConfig<1, 256, 0>>();
}

}  // namespace lithe::device
