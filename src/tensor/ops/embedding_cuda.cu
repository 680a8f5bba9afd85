#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

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

}  // namespace

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

}  // namespace lithe
