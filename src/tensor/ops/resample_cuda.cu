// Upsampling and pixel shuffles: gathers, an element or a pack of channels of the output a thread.
#include "tensor/core/tensor.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

// Sizes of the small image [B, H, W, C]; the large one is [B, H f, W f, C].
struct Resample {
  int64_t height, width, channels, factor;
};

// y [B, H f, W f, C] from x [B, H, W, C].
template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    upsample_kernel(const Resample s, int64_t n, const T* x, T* y) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  if (i >= n) {
    return;
  }
  const int64_t pixel = i / s.channels;
  const int64_t line = pixel / (s.width * s.factor);  // counted over all images
  const int64_t column = (pixel - line * s.width * s.factor) / s.factor;
  const int64_t from = (line / s.factor * s.width + column) * s.channels;
  store(y + i, load<kVector>(x + from + (i - pixel * s.channels)));
}

// dx [B, H, W, C]: the sum over each f x f block of dy.
template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    upsample_grad_kernel(const Resample s, int64_t n, const T* dy, T* dx) {
  using A = acc_t<T>;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVector;
  if (i >= n) {
    return;
  }
  const int64_t pixel = i / s.channels;
  const int64_t line = pixel / s.width;
  const int64_t corner = (line * s.factor * s.width + (pixel - line * s.width)) * s.factor;
  A sums[kVector] = {};
  for (int64_t y = 0; y < s.factor; ++y) {
    for (int64_t x = 0; x < s.factor; ++x) {
      const int64_t from = corner + y * s.width * s.factor + x;
      const Pack<T, kVector> pack =
          load<kVector>(dy + from * s.channels + (i - pixel * s.channels));
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        sums[j] += widen<A>(pack.at[j]);
      }
    }
  }
  Pack<T, kVector> out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    out.at[j] = narrow<T>(sums[j]);
  }
  store(dx + i, out);
}

// to [B, H, W, C f²] from [B, H f, W f, C].
template <typename T>
__global__ void __launch_bounds__(kThreads)
    unshuffle_kernel(const Resample s, int64_t n, const T* from, T* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) {
    return;
  }
  const int64_t place = i / s.factor;  // [B, H, W, C, f]
  const int64_t block = place / s.factor;
  const int64_t pixel = block / s.channels;
  const int64_t line = pixel / s.width;
  const int64_t row = line * s.factor + (place - block * s.factor);
  const int64_t column = (pixel - line * s.width) * s.factor + (i - place * s.factor);
  to[i] = from[(row * s.width * s.factor + column) * s.channels + (block - pixel * s.channels)];
}

// to [B, H f, W f, C] from [B, H, W, C f²].
template <typename T>
__global__ void __launch_bounds__(kThreads)
    shuffle_kernel(const Resample s, int64_t n, const T* from, T* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) {
    return;
  }
  const int64_t pixel = i / s.channels;
  const int64_t row = pixel / (s.width * s.factor);
  const int64_t column = pixel - row * s.width * s.factor;
  const int64_t line = row / s.factor;
  const int64_t place = column / s.factor;
  const int64_t block = (line * s.width + place) * s.channels + (i - pixel * s.channels);
  to[i] =
      from[(block * s.factor + (row - line * s.factor)) * s.factor + (column - place * s.factor)];
}

Resample sizes(const KernelArgs& args, const Shape& small, int64_t channels) {
  return {small[1], small[2], channels, args.attr<ResampleAttrs>().factor};
}

// launch.operator()<kVector, T>(n, blocks) for an output whose channels move in packs.
template <bool kPacks, typename Launch>
void launch_on(const KernelArgs& args, int64_t channels, Launch&& launch) {
  const int64_t n = args.out[0].numel();
  if (n == 0) {
    return;
  }
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    if constexpr (kPacks) {
      if (channels % kWide<T> == 0) {
        launch.template operator()<kWide<T>, T>(n, blocks_for(n / kWide<T>, kThreads));
        check_launch(args.op);
        return;
      }
    }
    launch.template operator()<1, T>(n, blocks_for(n, kThreads));
    check_launch(args.op);
  });
}

}  // namespace

void upsample_nearest_cuda(const KernelArgs& args) {
  const Resample s = sizes(args, args.in[0].shape, args.in[0].shape[3]);
  launch_on<true>(args, s.channels, [&]<int kVector, typename T>(int64_t n, unsigned blocks) {
    upsample_kernel<kVector, T>
        <<<blocks, kThreads, 0, stream_of(args)>>>(s, n, args.in[0].as<T>(), args.out[0].as<T>());
  });
}

void upsample_nearest_grad_cuda(const KernelArgs& args) {
  const Resample s = sizes(args, args.out[0].shape, args.out[0].shape[3]);
  launch_on<true>(args, s.channels, [&]<int kVector, typename T>(int64_t n, unsigned blocks) {
    upsample_grad_kernel<kVector, T>
        <<<blocks, kThreads, 0, stream_of(args)>>>(s, n, args.in[0].as<T>(), args.out[0].as<T>());
  });
}

void pixel_unshuffle_cuda(const KernelArgs& args) {
  const Resample s = sizes(args, args.out[0].shape, args.in[0].shape[3]);
  launch_on<false>(args, s.channels, [&]<int kVector, typename T>(int64_t n, unsigned blocks) {
    unshuffle_kernel<T>
        <<<blocks, kThreads, 0, stream_of(args)>>>(s, n, args.in[0].as<T>(), args.out[0].as<T>());
  });
}

void pixel_shuffle_cuda(const KernelArgs& args) {
  const Resample s = sizes(args, args.in[0].shape, args.out[0].shape[3]);
  launch_on<false>(args, s.channels, [&]<int kVector, typename T>(int64_t n, unsigned blocks) {
    shuffle_kernel<T>
        <<<blocks, kThreads, 0, stream_of(args)>>>(s, n, args.in[0].as<T>(), args.out[0].as<T>());
  });
}

}  // namespace lithe
