// The gradients of the biases of query, key and value: sums over all rows of packed gradients.
#include <algorithm>

#include "tensor/ops/attention_cuda.h"
#include "tensor/ops/cuda_chunk_join.h"
#include "tensor/ops/cuda_column_sum.h"

namespace lithe::attention_cuda_kernels {
namespace {

using namespace device;

// Of the packed gradients [rows, width].
template <int kVector, typename T>
struct RowTerm {
  const T* packed;
  int64_t width;
  __device__ void add(int64_t row, int64_t column, acc_t<T> (&sums)[1][kVector]) const {
    const Pack<T, kVector> d = load<kVector>(packed + row * width + column);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      sums[0][j] += widen<acc_t<T>>(d.at[j]);
    }
  }
};

template <typename T>
struct BiasOut {
  explicit BiasOut(const KernelArgs& args)
      : query(args.out[1].as<T>()),
        key(args.out[2].as<T>()),
        value(args.out[3].as<T>()),
        columns(args.out[1].numel()) {}
  __device__ void operator()(int64_t i, acc_t<T> total) const {
    T* const to = i < columns ? query : i < 2 * columns ? key : value;
    to[i % columns] = narrow<T>(total);
  }
  T* query;
  T* key;
  T* value;
  int64_t columns;  // N * D
};

}  // namespace

void sum_biases(const KernelArgs& args) {
  const Shape& packed = args.out[0].shape;
  const int64_t rows = packed[0] * packed[1];
  const int64_t width = 3 * args.out[1].numel();
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const bool wide = width % kWide<T> == 0;
    const int64_t wanted =
        kColumnSumBlocks / blocks_for(width, kColumnLanes * (wide ? kWide<T> : 1));
    const int64_t chunks =
        std::clamp<int64_t>(wanted, 1, std::clamp<int64_t>(rows / 64, 1, kMostChunks));
    expect_workspace(args, chunks * width * static_cast<int64_t>(sizeof(A)));
    A* const partial = static_cast<A*>(args.workspace);
    const auto launch = [&]<int kVector>() {
      const dim3 grid(blocks_for(width, kColumnLanes * kVector), static_cast<unsigned>(chunks));
      column_sum_kernel<kVector, 1, A>
          <<<grid, dim3(kColumnLanes, kColumnSlices), 0, stream_of(args)>>>(
              rows, width, RowTerm<kVector, T>{args.out[0].as<T>(), width}, partial);
    };
    if (wide) {
      launch.template operator()<kWide<T>>();
    } else {
      launch.template operator()<1>();
    }
    check_launch(args.op);
    join_chunks(args, chunks, width, partial, BiasOut<T>(args));
  });
}

void join_bias_sums(const KernelArgs& args, int64_t rows, const float* partial) {
  const int64_t width = 3 * args.out[1].numel();
  if (args.out[1].dtype == DType::bf16) {
    join_chunks(args, rows, width, partial, BiasOut<bf16>(args));
  } else {
    join_chunks(args, rows, width, partial, BiasOut<f16>(args));
  }
}

}  // namespace lithe::attention_cuda_kernels
