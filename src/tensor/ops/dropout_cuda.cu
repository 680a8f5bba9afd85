#include "tensor/core/tensor.h"
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
  int64_t rows = 0;
  int64_t width = 0;
  int64_t row_blocks = 0;
  const T* x = nullptr;
  T* y = nullptr;
};

// A thread takes the elements of one block of random numbers, in loads of at most 16 bytes.
template <int kBits, typename T>
__global__ void __launch_bounds__(kThreads) dropout_kernel(const DropoutParams<T> p) {
  using A = acc_t<T>;
  constexpr int kLanes = kLanesOfBlock<kBits>;
  constexpr int kLoad = kWide<T> < kLanes ? kWide<T> : kLanes;
  const int64_t block_index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = p.rows == 1 ? 0 : block_index / p.row_blocks;
  const int64_t first = (block_index - row * p.row_blocks) * kLanes;  // of the row
  if (row >= p.rows || first >= p.width) {
    return;
  }
  const T* const x = p.x + row * p.width + first;
  T* const y = p.y + row * p.width + first;
  Pack<T, kLoad> packs[kLanes / kLoad];
  const bool is_whole = first + kLanes <= p.width && (p.rows == 1 || p.width % kLoad == 0);
  if (is_whole) {
#pragma unroll
    for (int k = 0; k < kLanes / kLoad; ++k) {
      packs[k] = load<kLoad>(x + k * kLoad);
    }
  }
  const PhiloxBlock block =
      dropout_block(static_cast<uint64_t>(p.rng[0]), mix(p.key, static_cast<uint64_t>(p.rng[1])),
                    static_cast<uint64_t>(block_index));
  if (is_whole) {
#pragma unroll
    for (int k = 0; k < kLanes / kLoad; ++k) {
#pragma unroll
      for (int j = 0; j < kLoad; ++j) {
        const A kept = widen<A>(packs[k].at[j]) * p.scale;
        const bool keeps = dropout_lane<kBits>(block, k * kLoad + j) >= p.threshold;
        packs[k].at[j] = narrow<T>(keeps ? kept : A(0));
      }
      store(y + k * kLoad, packs[k]);
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < kLanes; ++j) {
    if (first + j < p.width) {
      const A kept = widen<A>(x[j]) * p.scale;
      y[j] = narrow<T>(dropout_lane<kBits>(block, j) >= p.threshold ? kept : A(0));
    }
  }
}

template <int kBits>
void drop_rows(const KernelArgs& args, int64_t rows, int64_t width) {
  const auto attrs = args.attr<DropoutAttrs>();
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const int64_t row_blocks = (width + kLanesOfBlock<kBits> - 1) / kLanesOfBlock<kBits>;
    const DropoutParams<T> params{.rng = args.in[1].as<int64_t>(),
                                  .key = attrs.key,
                                  .threshold = dropout_threshold(attrs.p, kBits),
                                  .scale = static_cast<acc_t<T>>(dropout_scale(attrs.p, kBits)),
                                  .rows = rows,
                                  .width = width,
                                  .row_blocks = row_blocks,
                                  .x = args.in[0].as<T>(),
                                  .y = args.out[0].as<T>()};
    dropout_kernel<kBits, T>
        <<<blocks_for(rows * row_blocks, kThreads), kThreads, 0, stream_of(args)>>>(params);
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
    drop_rows<kAttentionDropoutBits>(args, n / width, width);
  } else {
    drop_rows<16>(args, 1, n);
  }
}

}  // namespace lithe
