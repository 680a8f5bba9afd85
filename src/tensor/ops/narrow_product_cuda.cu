#include "tensor/ops/narrow_product_cuda.h"

#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_chunk_join.h"
#include "tensor/ops/cuda_vector.h"

namespace lithe::narrow_product {
namespace {

using namespace device;

constexpr int kLanes = 32;  // threads of a block along the wide dimension
constexpr int kSlices = 8;  // and along the rows
constexpr int kThreads = kLanes * kSlices;
constexpr int64_t kRowsOfBlock = 64;
constexpr int64_t kMostChunks = 256;

// Where the sums go: dw [out * in], behind it db.
template <typename T, typename A>
struct DwOut {
  T* dw;
  T* db;
  int64_t size;  // of dw
  A alpha;
  __device__ void operator()(int64_t i, A total) const {
    if (i < size) {
      dw[i] = narrow<T>(alpha * total);
    } else {
      db[i - size] = narrow<T>(total);
    }
  }
};

// Range `blockIdx.y` of the rows, kLanes * kVector columns of x, all `out` <= kOut of dy. The sums
// go to `partial` [chunks, out * in + out]; those of the only range to where they belong.
template <int kOut, int kVector, typename T, typename A>
__global__ void __launch_bounds__(kThreads)
    dw_kernel(int64_t rows, int out, int64_t in, const T* dy, const T* x, DwOut<T, A> to,
              A* partial) {
  __shared__ A of_slice[kSlices][kLanes * kVector];
  __shared__ A of_dy[kSlices][kOut];
  const int lane = static_cast<int>(threadIdx.x);
  const int slice = static_cast<int>(threadIdx.y);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kLanes * kVector;
  const int64_t column = first + int64_t{lane} * kVector;
  const int64_t chunk = blockIdx.y;
  const int64_t chunks = gridDim.y;
  const int64_t end = rows * (chunk + 1) / chunks;
  A sums[kOut][kVector] = {};
  A sums_of_dy[kOut] = {};
  if (column < in) {
#pragma unroll 4
    for (int64_t row = rows * chunk / chunks + slice; row < end; row += kSlices) {
      const Pack<T, kVector> of_x = load<kVector>(x + row * in + column);
#pragma unroll
      for (int o = 0; o < kOut; ++o) {
        const A d = o < out ? widen<A>(dy[row * out + o]) : A(0);
        sums_of_dy[o] += d;
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
          sums[o][j] += d * widen<A>(of_x.at[j]);
        }
      }
    }
  }
  const bool sums_dy = to.db != nullptr && blockIdx.x == 0;
  const int64_t all = out * in + (to.db != nullptr ? out : 0);
  const auto put = [&](int64_t i, A total) {
    if (chunks == 1) {
      to(i, total);
    } else {
      partial[chunk * all + i] = total;
    }
  };
  if (sums_dy && lane == 0) {
#pragma unroll
    for (int o = 0; o < kOut; ++o) {
      of_dy[slice][o] = sums_of_dy[o];
    }
  }
  const int thread = slice * kLanes + lane;
#pragma unroll
  for (int o = 0; o < kOut; ++o) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      of_slice[slice][lane * kVector + j] = sums[o][j];
    }
    __syncthreads();
    if (o < out && thread < kLanes * kVector && first + thread < in) {
      A total = of_slice[0][thread];
#pragma unroll
      for (int i = 1; i < kSlices; ++i) {
        total += of_slice[i][thread];
      }
      put(o * in + first + thread, total);
    }
  }
  if (sums_dy && thread < out) {
    A total = of_dy[0][thread];
#pragma unroll
    for (int i = 1; i < kSlices; ++i) {
      total += of_dy[i][thread];
    }
    put(out * in + thread, total);
  }
}

// Each thread keeps its columns of b and goes down the rows.
template <int kInner, int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    outer_kernel(int64_t rows, int inner, int64_t columns, acc_t<T> alpha, const T* a, const T* b,
                 T* c) {
  using A = acc_t<T>;
  constexpr int64_t kColumns = int64_t{kLanes} * kVector;
  const int64_t tiles = (columns + kColumns - 1) / kColumns;
  const int64_t column = blockIdx.x % tiles * kColumns + int64_t{threadIdx.x} * kVector;
  if (column >= columns) {
    return;
  }
  A of_b[kInner][kVector] = {};
#pragma unroll
  for (int k = 0; k < kInner; ++k) {
    if (k < inner) {
      const Pack<T, kVector> pack = load<kVector>(b + k * columns + column);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        of_b[k][j] = widen<A>(pack.at[j]);
      }
    }
  }
  const int64_t begin = blockIdx.x / tiles * kRowsOfBlock;
  const int64_t end = min(begin + kRowsOfBlock, rows);
#pragma unroll 2
  for (int64_t row = begin + threadIdx.y; row < end; row += kSlices) {
    A sums[kVector] = {};
#pragma unroll
    for (int k = 0; k < kInner; ++k) {
      const A of_a = k < inner ? widen<A>(a[row * inner + k]) : A(0);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        sums[j] += of_a * of_b[k][j];
      }
    }
    Pack<T, kVector> pack;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      pack.at[j] = narrow<T>(alpha * sums[j]);
    }
    store(c + row * columns + column, pack);
  }
}

// run.template operator()<kMost, kVector>() with the next power of two from `size` on.
template <typename T, typename Run>
void dispatch_sizes(int64_t size, int64_t wide, Run&& run) {
  const auto with_size = [&]<int kVector>() {
    if (size <= 1) {
      run.template operator()<1, kVector>();
    } else if (size <= 2) {
      run.template operator()<2, kVector>();
    } else if (size <= 4) {
      run.template operator()<4, kVector>();
    } else {
      run.template operator()<8, kVector>();
    }
  };
  static_assert(kNarrow == 8);
  if (wide % kWide<T> == 0) {
    with_size.template operator()<kWide<T>>();
  } else {
    with_size.template operator()<1>();
  }
}

}  // namespace

void dw(const KernelArgs& args, const Dw& p) {
  dispatch_floating(p.dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const DwOut<T, A> to{static_cast<T*>(p.dw), static_cast<T*>(p.db), p.out * p.in,
                         static_cast<A>(p.alpha)};
    const int64_t sums = p.out * p.in + (p.db != nullptr ? p.out : 0);
    const int64_t room = args.workspace_bytes / (sums * static_cast<int64_t>(sizeof(A)));
    const int64_t chunks =
        std::max<int64_t>(std::min({room, kMostChunks, p.rows / kRowsOfBlock}), 1);
    A* partial = static_cast<A*>(args.workspace);
    dispatch_sizes<T>(p.out, p.in, [&]<int kOut, int kVector>() {
      const dim3 grid(blocks_for(p.in, int64_t{kLanes} * kVector), static_cast<unsigned>(chunks));
      dw_kernel<kOut, kVector, T, A><<<grid, dim3(kLanes, kSlices), 0, stream_of(args)>>>(
          p.rows, static_cast<int>(p.out), p.in, static_cast<const T*>(p.dy),
          static_cast<const T*>(p.x), to, partial);
    });
    check_launch(args.op);
    if (chunks > 1) {
      join_chunks(args, chunks, sums, partial, to);
    }
  });
}

void outer(const KernelArgs& args, const Outer& p) {
  if (p.rows == 0) {
    return;
  }
  dispatch_floating(p.dtype, args.op, [&]<typename T>() {
    dispatch_sizes<T>(p.inner, p.columns, [&]<int kInner, int kVector>() {
      const int64_t tiles = blocks_for(p.columns, int64_t{kLanes} * kVector);
      const unsigned grid = blocks_for(tiles * blocks_for(p.rows, kRowsOfBlock), 1);
      outer_kernel<kInner, kVector, T><<<grid, dim3(kLanes, kSlices), 0, stream_of(args)>>>(
          p.rows, static_cast<int>(p.inner), p.columns, static_cast<acc_t<T>>(p.alpha),
          static_cast<const T*>(p.a), static_cast<const T*>(p.b), static_cast<T*>(p.c));
    });
    check_launch(args.op);
  });
}

}  // namespace lithe::narrow_product
