#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

// Philox gives four words a block, so no thread takes fewer than four elements.
template <typename T>
inline constexpr int kDropoutElements = kWide<T> < 4 ? 4 : kWide<T>;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(int64_t n, const int64_t* rng, uint64_t key, uint32_t threshold, acc_t<T> scale,
                   const T* x, T* y) {
  using A = acc_t<T>;
  constexpr int kV = kDropoutElements<T>;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kV;
  if (i >= n) {
    return;
  }
  const auto seed = static_cast<uint64_t>(rng[0]);
  const uint64_t stream = mix(key, static_cast<uint64_t>(rng[1]));
  uint32_t words[kV];
#pragma unroll
  for (int b = 0; b < kV / 4; ++b) {
    const PhiloxBlock block = philox(seed, stream, static_cast<uint64_t>(i / 4 + b));
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      words[b * 4 + w] = block.word[w];
    }
  }
  if (i + kV <= n) {
    Pack<T, kV> pack = load<kV>(x + i);
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      const A kept = widen<A>(pack.at[j]) * scale;
      pack.at[j] = narrow<T>(words[j] >= threshold ? kept : A(0));
    }
    store(y + i, pack);
    return;
  }
#pragma unroll
  for (int j = 0; j < kV; ++j) {
    if (i + j < n) {
      const A kept = widen<A>(x[i + j]) * scale;
      y[i + j] = narrow<T>(words[j] >= threshold ? kept : A(0));
    }
  }
}

// Not a number in every element: what an id outside the table looks like, since a kernel cannot
// throw.
template <typename T>
__device__ inline T invalid() {
  return narrow<T>(static_cast<acc_t<T>>(NAN));
}

// y [n, hidden]; kVector elements of a row a thread.
template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    embedding_kernel(int64_t n, int64_t hidden, int64_t vocabulary, const int64_t* ids,
                     const T* table, T* y) {
  const int64_t packs = hidden / kVector;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= n * packs) {
    return;
  }
  const int64_t row = item / packs;
  const int64_t column = (item - row * packs) * kVector;
  const int64_t id = ids[row];
  Pack<T, kVector> pack;
  if (id >= 0 && id < vocabulary) {
    pack = load<kVector>(table + id * hidden + column);
  } else {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      pack.at[j] = invalid<T>();
    }
  }
  store(y + row * hidden + column, pack);
}

constexpr int kScanThreads = 128;
constexpr int kScanColumns = 8;  // of a thread

// One block for each table row and strip of columns: it looks through all ids and adds the rows of
// dy that are its own, from the first on. No sort, no atomics; reading ids is cheap beside dtable.
template <typename T>
__global__ void __launch_bounds__(kScanThreads)
    embedding_grad_kernel(int64_t n, int64_t hidden, int64_t padding, const int64_t* ids,
                          const T* dy, T* dtable) {
  using A = acc_t<T>;
  __shared__ bool mine[kScanThreads];
  const int64_t id = blockIdx.x;
  if (id == padding) {
    n = 0;
  }
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kScanThreads * kScanColumns;
  const int thread = static_cast<int>(threadIdx.x);
  A sums[kScanColumns] = {};
  for (int64_t begin = 0; begin < n; begin += kScanThreads) {
    const bool match = begin + thread < n && ids[begin + thread] == id;
    mine[thread] = match;
    if (__syncthreads_or(match ? 1 : 0) != 0) {
      for (int i = 0; i < kScanThreads; ++i) {
        if (!mine[i]) {
          continue;
        }
        const T* row = dy + (begin + i) * hidden;
#pragma unroll
        for (int c = 0; c < kScanColumns; ++c) {
          const int64_t column = first + c * kScanThreads + thread;
          if (column < hidden) {
            sums[c] += widen<A>(row[column]);
          }
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int c = 0; c < kScanColumns; ++c) {
    const int64_t column = first + c * kScanThreads + thread;
    if (column < hidden) {
      dtable[id * hidden + column] = narrow<T>(sums[c]);
    }
  }
}

}  // namespace

void dropout_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<DropoutAttrs>();
  const int64_t n = args.out[0].numel();
  if (n == 0) {
    return;
  }
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const auto scale = static_cast<acc_t<T>>(1.0 / (1.0 - attrs.p));
    const unsigned blocks = blocks_for(n, int64_t{kThreads} * kDropoutElements<T>);
    dropout_kernel<T><<<blocks, kThreads, 0, stream_of(args)>>>(
        n, args.in[1].as<int64_t>(), attrs.key, dropout_threshold(attrs.p), scale,
        args.in[0].as<T>(), args.out[0].as<T>());
    check_launch(args.op);
  });
}

void embedding_cuda(const KernelArgs& args) {
  const int64_t n = args.in[1].numel();
  const int64_t vocabulary = args.in[0].shape[0];
  const int64_t hidden = args.in[0].shape[1];
  if (args.out[0].numel() == 0) {
    return;
  }
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const auto launch = [&]<int kVector>() {
      embedding_kernel<kVector, T>
          <<<blocks_for(n * (hidden / kVector), kThreads), kThreads, 0, stream_of(args)>>>(
              n, hidden, vocabulary, args.in[1].as<int64_t>(), args.in[0].as<T>(),
              args.out[0].as<T>());
    };
    hidden % kWide<T> == 0 ? launch.template operator()<kWide<T>>()
                           : launch.template operator()<1>();
    check_launch(args.op);
  });
}

void embedding_grad_cuda(const KernelArgs& args) {
  const int64_t vocabulary = args.out[0].shape[0];
  const int64_t hidden = args.out[0].shape[1];
  if (args.out[0].numel() == 0) {
    return;
  }
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const dim3 grid(blocks_for(vocabulary, 1),
                    blocks_for(hidden, int64_t{kScanThreads} * kScanColumns));
    embedding_grad_kernel<T><<<grid, kScanThreads, 0, stream_of(args)>>>(
        args.in[1].numel(), hidden, args.attr<EmbeddingAttrs>().padding, args.in[1].as<int64_t>(),
        args.in[0].as<T>(), args.out[0].as<T>());
    check_launch(args.op);
  });
}

}  // namespace lithe
