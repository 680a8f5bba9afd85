// Pools. A thread takes neighbouring channels of one place; memory is what limits it.
#include "tensor/core/tensor.h"
#include "tensor/ops/conv_geometry.h"
#include "tensor/ops/cuda_vector.h"
#include "tensor/ops/kernels_cuda.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;

// x [B, H, W, C] and y [B, H', W', C].
struct PoolSizes {
  PoolAttrs a;
  int64_t batch, height, width, out_height, out_width, channels;

  __device__ Window rows_of(int64_t line) const {
    const int64_t top = line * a.stride_h - a.pad_h;
    const Window w = taps_inside(top, a.kernel_h, height);
    return {top + w.begin, top + w.end};
  }
  __device__ Window columns_of(int64_t place) const {
    const int64_t left = place * a.stride_w - a.pad_w;
    const Window w = taps_inside(left, a.kernel_w, width);
    return {left + w.begin, left + w.end};
  }
  __device__ Window lines_over(int64_t row) const {
    return windows_over(row, a.kernel_h, a.stride_h, a.pad_h, out_height);
  }
  __device__ Window places_over(int64_t column) const {
    return windows_over(column, a.kernel_w, a.stride_w, a.pad_w, out_width);
  }
};

PoolSizes sizes(const PoolAttrs& a, const Shape& x, const Shape& y) {
  return {a, x[0], x[1], x[2], y[1], y[2], x[3]};
}

__device__ inline int64_t count(const Window& w) { return w.end - w.begin; }

// The first element of this thread in a tensor [images, height, width, channels].
template <int kVector>
struct Place {
  int64_t element, image, row, column, channel;

  __device__ Place(int64_t height, int64_t width, int64_t channels) {
    const int64_t packs = channels / kVector;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t pixel = i / packs;
    const int64_t line = pixel / width;
    image = line / height;
    row = line - image * height;
    column = pixel - line * width;
    channel = (i - pixel * packs) * kVector;
    element = i * kVector;
  }
};

template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    avg_pool_kernel(const PoolSizes s, int64_t n, const T* x, T* y) {
  using A = acc_t<T>;
  const Place<kVector> at(s.out_height, s.out_width, s.channels);
  if (at.element >= n) {
    return;
  }
  const Window rows = s.rows_of(at.row);
  const Window columns = s.columns_of(at.column);
  A sums[kVector] = {};
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t column = columns.begin; column < columns.end; ++column) {
      const int64_t pixel = (at.image * s.height + row) * s.width + column;
      const Pack<T, kVector> pack = load<kVector>(x + pixel * s.channels + at.channel);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        sums[j] += widen<A>(pack.at[j]);
      }
    }
  }
  const A factor = A(1) / static_cast<A>(count(rows) * count(columns));
  Pack<T, kVector> out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    out.at[j] = narrow<T>(sums[j] * factor);
  }
  store(y + at.element, out);
}

template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    avg_pool_grad_kernel(const PoolSizes s, int64_t n, const T* dy, T* dx) {
  using A = acc_t<T>;
  const Place<kVector> at(s.height, s.width, s.channels);
  if (at.element >= n) {
    return;
  }
  const Window lines = s.lines_over(at.row);
  const Window places = s.places_over(at.column);
  A sums[kVector] = {};
  for (int64_t line = lines.begin; line < lines.end; ++line) {
    const int64_t rows = count(s.rows_of(line));
    for (int64_t place = places.begin; place < places.end; ++place) {
      const A factor = A(1) / static_cast<A>(rows * count(s.columns_of(place)));
      const int64_t window = (at.image * s.out_height + line) * s.out_width + place;
      const Pack<T, kVector> pack = load<kVector>(dy + window * s.channels + at.channel);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        sums[j] += widen<A>(pack.at[j]) * factor;
      }
    }
  }
  Pack<T, kVector> out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    out.at[j] = narrow<T>(sums[j]);
  }
  store(dx + at.element, out);
}

template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    max_pool_kernel(const PoolSizes s, int64_t n, const T* x, T* y, int32_t* indices) {
  using A = acc_t<T>;
  const Place<kVector> at(s.out_height, s.out_width, s.channels);
  if (at.element >= n) {
    return;
  }
  const Window rows = s.rows_of(at.row);
  const Window columns = s.columns_of(at.column);
  A best[kVector];
  Pack<int32_t, kVector> index;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    best[j] = static_cast<A>(-INFINITY);
    index.at[j] = static_cast<int32_t>(rows.begin * s.width + columns.begin);
  }
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t column = columns.begin; column < columns.end; ++column) {
      const int64_t in_plane = row * s.width + column;
      const int64_t pixel = at.image * s.height * s.width + in_plane;
      const Pack<T, kVector> pack = load<kVector>(x + pixel * s.channels + at.channel);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        const A value = widen<A>(pack.at[j]);
        if (value > best[j] || value != value) {  // NaN wins, to be seen
          best[j] = value;
          index.at[j] = static_cast<int32_t>(in_plane);
        }
      }
    }
  }
  Pack<T, kVector> out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    out.at[j] = narrow<T>(best[j]);
  }
  store(y + at.element, out);
  store(indices + at.element, index);
}

template <int kVector, typename T>
__global__ void __launch_bounds__(kThreads)
    max_pool_grad_kernel(const PoolSizes s, int64_t n, const T* dy, const int32_t* indices, T* dx) {
  using A = acc_t<T>;
  const Place<kVector> at(s.height, s.width, s.channels);
  if (at.element >= n) {
    return;
  }
  const auto here = static_cast<int32_t>(at.row * s.width + at.column);
  const Window lines = s.lines_over(at.row);
  const Window places = s.places_over(at.column);
  A sums[kVector] = {};
  for (int64_t line = lines.begin; line < lines.end; ++line) {
    for (int64_t place = places.begin; place < places.end; ++place) {
      const int64_t window = (at.image * s.out_height + line) * s.out_width + place;
      const int64_t from = window * s.channels + at.channel;
      const Pack<int32_t, kVector> index = load<kVector>(indices + from);
      const Pack<T, kVector> pack = load<kVector>(dy + from);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        sums[j] += index.at[j] == here ? widen<A>(pack.at[j]) : A(0);
      }
    }
  }
  Pack<T, kVector> out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    out.at[j] = narrow<T>(sums[j]);
  }
  store(dx + at.element, out);
}

// launch.operator()<kVector, T>(blocks) for an output of n elements.
template <typename Launch>
void by_packs(const KernelArgs& args, int64_t channels, Launch&& launch) {
  const int64_t n = args.out[0].numel();
  if (n == 0) {
    return;
  }
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    if (channels % kWide<T> == 0) {
      launch.template operator()<kWide<T>, T>(n, blocks_for(n / kWide<T>, kThreads));
    } else {
      launch.template operator()<1, T>(n, blocks_for(n, kThreads));
    }
    check_launch(args.op);
  });
}

}  // namespace

void avg_pool2d_cuda(const KernelArgs& args) {
  const PoolSizes s = sizes(args.attr<PoolAttrs>(), args.in[0].shape, args.out[0].shape);
  by_packs(args, s.channels, [&]<int kVector, typename T>(int64_t n, unsigned blocks) {
    avg_pool_kernel<kVector, T>
        <<<blocks, kThreads, 0, stream_of(args)>>>(s, n, args.in[0].as<T>(), args.out[0].as<T>());
  });
}

void avg_pool2d_grad_cuda(const KernelArgs& args) {
  const PoolSizes s = sizes(args.attr<PoolGradAttrs>().pool, args.out[0].shape, args.in[0].shape);
  by_packs(args, s.channels, [&]<int kVector, typename T>(int64_t n, unsigned blocks) {
    avg_pool_grad_kernel<kVector, T>
        <<<blocks, kThreads, 0, stream_of(args)>>>(s, n, args.in[0].as<T>(), args.out[0].as<T>());
  });
}

void max_pool2d_cuda(const KernelArgs& args) {
  const PoolSizes s = sizes(args.attr<PoolAttrs>(), args.in[0].shape, args.out[0].shape);
  by_packs(args, s.channels, [&]<int kVector, typename T>(int64_t n, unsigned blocks) {
    max_pool_kernel<kVector, T><<<blocks, kThreads, 0, stream_of(args)>>>(
        s, n, args.in[0].as<T>(), args.out[0].as<T>(), args.out[1].as<int32_t>());
  });
}

void max_pool2d_grad_cuda(const KernelArgs& args) {
  const PoolSizes s = sizes(args.attr<PoolGradAttrs>().pool, args.out[0].shape, args.in[0].shape);
  by_packs(args, s.channels, [&]<int kVector, typename T>(int64_t n, unsigned blocks) {
    max_pool_grad_kernel<kVector, T><<<blocks, kThreads, 0, stream_of(args)>>>(
        s, n, args.in[0].as<T>(), args.in[1].as<int32_t>(), args.out[0].as<T>());
  });
}

}  // namespace lithe
