// Joins partial sums of ranges of rows, in a fixed order. Device-only.
#pragma once

#include "tensor/ops/cuda_vector.h"

namespace lithe::device {

inline constexpr int kJoinLanes = 32;   // sums of a block
inline constexpr int kJoinSlices = 16;  // threads that share the chunks of one sum

// `out(i, total)` takes sum i of `partial` [chunks, sums].
template <typename A, typename Out>
__global__ void __launch_bounds__(kJoinLanes* kJoinSlices)
    chunk_join_kernel(int64_t chunks, int64_t sums, const A* partial, Out out) {
  __shared__ A of_slice[kJoinSlices][kJoinLanes];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kJoinLanes + threadIdx.x;
  A total = 0;
  if (i < sums) {
#pragma unroll 8
    for (int64_t chunk = threadIdx.y; chunk < chunks; chunk += kJoinSlices) {
      total += partial[chunk * sums + i];
    }
  }
  of_slice[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y == 0 && i < sums) {
#pragma unroll
    for (int slice = 1; slice < kJoinSlices; ++slice) {
      total += of_slice[slice][threadIdx.x];
    }
    out(i, total);
  }
}

template <typename A, typename Out>
void join_chunks(const KernelArgs& args, int64_t chunks, int64_t sums, const A* partial, Out out) {
  chunk_join_kernel<<<blocks_for(sums, kJoinLanes), dim3(kJoinLanes, kJoinSlices), 0,
                      stream_of(args)>>>(chunks, sums, partial, out);
  check_launch(args.op);
}

}  // namespace lithe::device
