// Sums over the rows of a matrix [rows, columns], the shape of every bias and scale gradient.
// Ranges of rows are summed apart into planned workspace, then joined in order: no atomics, the
// same bits every time. Device-only.
#pragma once

#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/processors.h"

namespace lithe::device {

inline constexpr int kColumnLanes = 32;      // threads of a block along the columns
inline constexpr int kColumnSlices = 8;      // and along the rows
inline constexpr int64_t kMostChunks = 256;  // ranges of rows
// Blocks that fill a Hopper once: more would only have shorter walks.
inline constexpr int64_t kColumnSumBlocks = 8 * kProcessors;

// What a term that stores loads: 16 bytes to be unpacked later, or one element.
template <typename T, int kVector>
using Words = std::conditional_t<kVector == 1, Pack<T, 1>, uint4>;
template <int kVector, typename T>
__device__ inline Words<T, kVector> load_or_words(const T* from) {
  if constexpr (kVector == 1) {
    return load<1>(from);
  } else {
    static_assert(kVector == kWide<T>);
    return load_words(from);
  }
}

// `term.add(row, column, sums)` adds kSums terms of each of kVector columns; sums[s][j]. A term
// that also stores has a type Loaded, `load(at)` and `add(loaded, at, sums)` of the element's
// number: several rows are always on their way, as the compiler could not prove that a load may
// pass a store. One with a `begin()` prepares its block with all of its threads.
inline constexpr int kRowsAhead = 4;
template <typename Term>
inline constexpr bool kTermStores = requires {
  typename Term::Loaded;
};
// Such walks want many bytes on their way; fp64, the oracle's type, keeps its registers.
template <typename A, typename Term>
inline constexpr int kColumnSumResident = kTermStores<Term> && sizeof(A) == 4 ? 4 : 1;

template <int kVector, int kSums, typename A, typename Term>
__global__ void __launch_bounds__(kColumnLanes* kColumnSlices, (kColumnSumResident<A, Term>))
    column_sum_kernel(int64_t rows, int64_t columns, Term term, A* partial) {
  __shared__ A of_slice[kColumnSlices][kColumnLanes * kVector];
  const int lane = static_cast<int>(threadIdx.x);
  const int slice = static_cast<int>(threadIdx.y);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kColumnLanes * kVector;
  const int64_t column = first + int64_t{lane} * kVector;
  const int64_t chunks = gridDim.y;
  // A pass over much memory goes from the end, which the kernel before has left in the cache.
  const int64_t chunk =
      kTermStores<Term> ? chunks - 1 - static_cast<int64_t>(blockIdx.y) : blockIdx.y;
  const int64_t end = column < columns ? rows * (chunk + 1) / chunks : 0;
  int64_t row = rows * chunk / chunks + slice;
  A sums[kSums][kVector] = {};
  if constexpr (kTermStores<Term>) {
    auto left = static_cast<int>(row < end ? (end - row + kColumnSlices - 1) / kColumnSlices : 0);
    const int64_t step = kColumnSlices * columns;
    int64_t at = row * columns + column;
    typename Term::Loaded loaded[kRowsAhead];
#pragma unroll
    for (int i = 0; i < kRowsAhead; ++i) {
      if (i < left) {
        loaded[i] = term.load(at + i * step);
      }
    }
    if constexpr (requires { term.begin(); }) {
      term.begin();  // while they arrive
    }
    while (left > 0) {
#pragma unroll
      for (int i = 0; i < kRowsAhead; ++i, --left, at += step) {
        asm("" : "+l"(at));  // or each of the loop's rows keeps addresses of its own in registers
        if (left > 0) {
          term.add(loaded[i], at, sums);
        }
        if (left > kRowsAhead) {
          loaded[i] = term.load(at + kRowsAhead * step);
        }
      }
    }
  } else {
#pragma unroll 4
    for (; row < end; row += kColumnSlices) {
      term.add(row, column, sums);
    }
  }
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      of_slice[slice][lane * kVector + j] = sums[s][j];
    }
    __syncthreads();
    const int thread = slice * kColumnLanes + lane;
    if (thread < kColumnLanes * kVector && first + thread < columns) {
      A total = of_slice[0][thread];
#pragma unroll
      for (int i = 1; i < kColumnSlices; ++i) {
        total += of_slice[i][thread];
      }
      partial[(chunk * kSums + s) * columns + first + thread] = total;
    }
  }
}

// Joins the chunks of sum `blockIdx.y`.
template <typename T, typename A>
__global__ void __launch_bounds__(128)
    join_chunks_kernel(int64_t chunks, int64_t columns, const A* partial, T* first, T* second) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * 128 + threadIdx.x;
  if (column >= columns) {
    return;
  }
  const int64_t sums = gridDim.y;
  A total = 0;
#pragma unroll 8
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    total += partial[(chunk * sums + blockIdx.y) * columns + column];
  }
  (blockIdx.y == 0 ? first : second)[column] = narrow<T>(total);
}

// One block of columns after the other, all rows: where no workspace was planned.
template <int kSums, typename T, typename A, typename Term>
__global__ void __launch_bounds__(128)
    column_sum_direct_kernel(int64_t rows, int64_t columns, Term term, T* first, T* second) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * 128 + threadIdx.x;
  if constexpr (requires { term.begin(); }) {
    term.begin();
  }
  if (column >= columns) {
    return;
  }
  A sums[kSums][1] = {};
  for (int64_t row = 0; row < rows; ++row) {
    if constexpr (kTermStores<Term>) {
      const int64_t at = row * columns + column;
      term.add(term.load(at), at, sums);
    } else {
      term.add(row, column, sums);
    }
  }
  first[column] = narrow<T>(sums[0][0]);
  if constexpr (kSums > 1) {
    second[column] = narrow<T>(sums[1][0]);
  }
}

// Term<kVector> is made by `make.template operator()<kVector>()`; `second` is written when kSums
// is 2.
template <int kSums, typename T, typename Make>
void column_sum(const KernelArgs& args, int64_t rows, int64_t columns, Make&& make, T* first,
                T* second) {
  using A = acc_t<T>;
  if (columns == 0) {
    return;
  }
  const cudaStream_t stream = stream_of(args);
  const auto bytes_of_chunk = static_cast<int64_t>(kSums * columns * sizeof(A));
  const int64_t width = kColumnLanes * (columns % kWide<T> == 0 ? kWide<T> : 1);
  const int64_t wanted = std::max<int64_t>(kColumnSumBlocks / ((columns + width - 1) / width), 1);
  const int64_t chunks = std::min({args.workspace_bytes / bytes_of_chunk, kMostChunks, wanted,
                                   std::max<int64_t>(rows / 64, 1)});
  if (chunks == 0) {
    column_sum_direct_kernel<kSums, T, A><<<blocks_for(columns, 128), 128, 0, stream>>>(
        rows, columns, make.template operator()<1>(), first, second);
    check_launch(args.op);
    return;
  }
  A* partial = static_cast<A*>(args.workspace);
  const auto launch = [&]<int kVector>() {
    const dim3 grid(blocks_for(columns, kColumnLanes * kVector), static_cast<unsigned>(chunks));
    column_sum_kernel<kVector, kSums, A><<<grid, dim3(kColumnLanes, kColumnSlices), 0, stream>>>(
        rows, columns, make.template operator()<kVector>(), partial);
  };
  if (columns % kWide<T> == 0) {
    launch.template operator()<kWide<T>>();
  } else {
    launch.template operator()<1>();
  }
  check_launch(args.op);
  const dim3 grid(blocks_for(columns, 128), kSums);
  join_chunks_kernel<<<grid, 128, 0, stream>>>(chunks, columns, partial, first, second);
  check_launch(args.op);
}

}  // namespace lithe::device
