#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

// A thread takes the elements of one block of random numbers, in loads of at most 16 bytes.
template <typename T>
inline constexpr int kLoad = kWide<T> < kDropoutLanes ? kWide<T> : kDropoutLanes;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(int64_t n, const int64_t* rng, uint64_t key, uint32_t threshold, acc_t<T> scale,
                   const T* x, T* y) {
  using A = acc_t<T>;
  const int64_t block_index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t i = block_index * kDropoutLanes;
  if (i >= n) {
    return;
  }
  Pack<T, kLoad<T>> packs[kDropoutLanes / kLoad<T>];
  const bool is_whole = i + kDropoutLanes <= n;
  if (is_whole) {
#pragma unroll
    for (int k = 0; k < kDropoutLanes / kLoad<T>; ++k) {
      packs[k] = load<kLoad<T>>(x + i + k * kLoad<T>);
    }
  }
  const PhiloxBlock block =
      dropout_block(static_cast<uint64_t>(rng[0]), mix(key, static_cast<uint64_t>(rng[1])),
                    static_cast<uint64_t>(block_index));
  if (is_whole) {
#pragma unroll
    for (int k = 0; k < kDropoutLanes / kLoad<T>; ++k) {
#pragma unroll
      for (int j = 0; j < kLoad<T>; ++j) {
        const A kept = widen<A>(packs[k].at[j]) * scale;
        const bool keeps = dropout_lane(block, k * kLoad<T> + j) >= threshold;
        packs[k].at[j] = narrow<T>(keeps ? kept : A(0));
      }
      store(y + i + k * kLoad<T>, packs[k]);
    }
    return;
  }
#pragma unroll
  for (int j = 0; j < kDropoutLanes; ++j) {
    if (i + j < n) {
      const A kept = widen<A>(x[i + j]) * scale;
      y[i + j] = narrow<T>(dropout_lane(block, j) >= threshold ? kept : A(0));
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
    const auto scale = static_cast<acc_t<T>>(dropout_scale(attrs.p));
    const unsigned blocks = blocks_for(n, int64_t{kThreads} * kDropoutLanes);
    dropout_kernel<T><<<blocks, kThreads, 0, stream_of(args)>>>(
        n, args.in[1].as<int64_t>(), attrs.key, dropout_threshold(attrs.p), scale,
        args.in[0].as<T>(), args.out[0].as<T>());
    check_launch(args.op);
  });
}

}  // namespace lithe
