#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_reduce.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

// Rows of `width` elements, each with blocks of random lanes of its own.
template <typename T>
struct DropoutParams {
  const int64_t* rng = nullptr;
  uint64_t key = 0;
  uint32_t threshold = 0;
  acc_t<T> scale = 1;
  int64_t count = 0;
  int64_t width = 0;
  int64_t row_blocks = 0;
  const T* x = nullptr;
  T* y = nullptr;

  __device__ PhiloxBlock block(int64_t index) const {
    return dropout_block(static_cast<uint64_t>(rng[0]), mix(key, static_cast<uint64_t>(rng[1])),
                         static_cast<uint64_t>(index));
  }
};

// Blocks that go on from row to row. A thread draws one of them, but a warp moves its elements side
// by side, 16 bytes a thread: bit j of a thread's `keep` is lane j of its block.
template <int kBits, typename T>
__global__ void __launch_bounds__(kThreads) dropout_kernel(const DropoutParams<T> p) {
  using A = acc_t<T>;
  constexpr int kLanes = kLanesOfBlock<kBits>;
  constexpr int kWords = kLanes / kWide<T>;  // accesses a thread
  static_assert(kLanes % kWide<T> == 0 && kWarp % kWords == 0);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int64_t block_index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = (block_index - lane) * kLanes + lane * kWide<T>;
  constexpr int kStep = kWarp * kWide<T>;
  uint4 words[kWords];
#pragma unroll
  for (int k = 0; k < kWords; ++k) {
    if (first + k * kStep + kWide<T> <= p.count) {
      words[k] = load_words(p.x + first + k * kStep);
    }
  }
  const PhiloxBlock block = p.block(block_index);
  uint32_t keep = 0;
#pragma unroll
  for (int j = 0; j < kLanes; ++j) {
    keep |= dropout_lane<kBits>(block, j) >= p.threshold ? 1u << j : 0u;
  }
#pragma unroll
  for (int k = 0; k < kWords; ++k) {
    uint32_t bits = keep;
    if constexpr (kWords > 1) {
      bits = __shfl_sync(0xffffffffu, keep, (k * kWarp + lane) / kWords);
      bits >>= lane % kWords * kWide<T>;
    }
    const int64_t at = first + k * kStep;
    if (at + kWide<T> <= p.count) {
      A v[kWide<T>];
      unpack<T>(words[k], v);
#pragma unroll
      for (int j = 0; j < kWide<T>; ++j) {
        v[j] = (bits >> j & 1u) != 0 ? v[j] * p.scale : A(0);
      }
      store_words(p.y + at, pack<T>(v));
    } else {
#pragma unroll
      for (int j = 0; j < kWide<T>; ++j) {
        if (at + j < p.count) {
          p.y[at + j] = narrow<T>((bits >> j & 1u) != 0 ? widen<A>(p.x[at + j]) * p.scale : A(0));
        }
      }
    }
  }
}

// Rows that end inside a block, which a thread takes.
template <int kBits, typename T>
__global__ void __launch_bounds__(kThreads) dropout_rows_kernel(const DropoutParams<T> p) {
  using A = acc_t<T>;
  constexpr int kLanes = kLanesOfBlock<kBits>;
  const int64_t block_index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = block_index / p.row_blocks;
  const int64_t first = (block_index - row * p.row_blocks) * kLanes;  // of the row
  const int64_t at = row * p.width + first;
  if (at >= p.count) {
    return;
  }
  const PhiloxBlock block = p.block(block_index);
#pragma unroll
  for (int j = 0; j < kLanes; ++j) {
    if (first + j < p.width) {
      const A kept = widen<A>(p.x[at + j]) * p.scale;
      p.y[at + j] = narrow<T>(dropout_lane<kBits>(block, j) >= p.threshold ? kept : A(0));
    }
  }
}

template <int kBits>
void drop(const KernelArgs& args, int64_t rows, int64_t width) {
  const auto attrs = args.attr<DropoutAttrs>();
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const int64_t row_blocks = (width + kLanesOfBlock<kBits> - 1) / kLanesOfBlock<kBits>;
    const DropoutParams<T> params{.rng = args.in[1].as<int64_t>(),
                                  .key = attrs.key,
                                  .threshold = dropout_threshold(attrs.p, kBits),
                                  .scale = static_cast<acc_t<T>>(dropout_scale(attrs.p, kBits)),
                                  .count = rows * width,
                                  .width = width,
                                  .row_blocks = row_blocks,
                                  .x = args.in[0].as<T>(),
                                  .y = args.out[0].as<T>()};
    const bool goes_on = rows == 1 || width % kLanesOfBlock<kBits> == 0;
    const auto kernel = goes_on ? dropout_kernel<kBits, T> : dropout_rows_kernel<kBits, T>;
    kernel<<<blocks_for(rows * row_blocks, kThreads), kThreads, 0, stream_of(args)>>>(params);
    check_launch(args.op);
  });
}

}  // namespace

void dropout_cuda(const KernelArgs& args) {
  const Shape& shape = args.out[0].shape;
  const int64_t n = args.out[0].numel();
  if (n == 0) {
    return;
  }
  if (args.attr<DropoutAttrs>().bits == kAttentionDropoutBits) {
    const int64_t width = shape.rank() == 0 ? 1 : shape[shape.rank() - 1];
    drop<kAttentionDropoutBits>(args, n / width, width);
  } else {
    drop<16>(args, 1, n);
  }
}

}  // namespace lithe
