// Depthwise convolution: every channel has its own kernel, so there is no product to be had.
// Neighbouring threads take neighbouring channels; memory is what limits it.
#include "tensor/core/tensor.h"
#include "tensor/ops/conv_cuda.h"
#include "tensor/ops/cuda_vector.h"

namespace lithe {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kLanes = 32;   // channels of a block of dw
constexpr int kSlices = 32;  // ranges of positions that it sums apart

struct Pixel {
  int64_t image, row, column;
};
__device__ inline Pixel pixel_at(int64_t i, int64_t height, int64_t width) {
  const int64_t line = i / width;
  const int64_t image = line / height;
  return {image, line - image * height, i - line * width};
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    depthwise_kernel(const ConvGeometry g, int64_t n, const T* x, const T* weight, const T* bias,
                     T* y) {
  using A = acc_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) {
    return;
  }
  const int64_t position = i / g.channels;
  const int64_t c = i - position * g.channels;
  const Pixel p = pixel_at(position, g.out_height, g.out_width);
  const int64_t top = p.row * g.attrs.stride_h - g.attrs.pad_h;
  const int64_t left = p.column * g.attrs.stride_w - g.attrs.pad_w;
  A sum = bias == nullptr ? A(0) : widen<A>(bias[c]);
  for (int64_t ky = 0; ky < g.kernel_h; ++ky) {
    const int64_t row = top + ky;
    if (row < 0 || row >= g.height) {
      continue;
    }
    for (int64_t kx = 0; kx < g.kernel_w; ++kx) {
      const int64_t column = left + kx;
      if (column >= 0 && column < g.width) {
        const int64_t from = ((p.image * g.height + row) * g.width + column) * g.channels + c;
        sum += widen<A>(x[from]) * widen<A>(weight[c * g.taps() + ky * g.kernel_w + kx]);
      }
    }
  }
  y[i] = narrow<T>(sum);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    depthwise_dx_kernel(const ConvGeometry g, int64_t n, const T* dy, const T* weight, T* dx) {
  using A = acc_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) {
    return;
  }
  const int64_t place = i / g.channels;
  const int64_t c = i - place * g.channels;
  const Pixel p = pixel_at(place, g.height, g.width);
  A sum = 0;
  for (int64_t ky = 0; ky < g.kernel_h; ++ky) {
    const int64_t down = p.row + g.attrs.pad_h - ky;
    const int64_t line = down / g.attrs.stride_h;
    if (down < 0 || line * g.attrs.stride_h != down || line >= g.out_height) {
      continue;
    }
    for (int64_t kx = 0; kx < g.kernel_w; ++kx) {
      const int64_t right = p.column + g.attrs.pad_w - kx;
      const int64_t column = right / g.attrs.stride_w;
      if (right < 0 || column * g.attrs.stride_w != right || column >= g.out_width) {
        continue;
      }
      const int64_t from =
          ((p.image * g.out_height + line) * g.out_width + column) * g.channels + c;
      sum += widen<A>(dy[from]) * widen<A>(weight[c * g.taps() + ky * g.kernel_w + kx]);
    }
  }
  dx[i] = narrow<T>(sum);
}

// One block for a tap and kLanes channels; ranges of positions are joined in order.
template <typename T>
__global__ void __launch_bounds__(kLanes* kSlices)
    depthwise_dw_kernel(const ConvGeometry g, int64_t positions, const T* x, const T* dy, T* dw) {
  using A = acc_t<T>;
  __shared__ A of_slice[kSlices][kLanes];
  const int lane = static_cast<int>(threadIdx.x);
  const int slice = static_cast<int>(threadIdx.y);
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kLanes + lane;
  const int64_t tap = blockIdx.y;
  const int64_t ky = tap / g.kernel_w;
  const int64_t kx = tap - ky * g.kernel_w;
  A sum = 0;
  if (c < g.channels) {
    for (int64_t position = slice; position < positions; position += kSlices) {
      const Pixel p = pixel_at(position, g.out_height, g.out_width);
      const int64_t row = p.row * g.attrs.stride_h - g.attrs.pad_h + ky;
      const int64_t column = p.column * g.attrs.stride_w - g.attrs.pad_w + kx;
      if (row >= 0 && row < g.height && column >= 0 && column < g.width) {
        const int64_t from = ((p.image * g.height + row) * g.width + column) * g.channels + c;
        sum += widen<A>(dy[position * g.channels + c]) * widen<A>(x[from]);
      }
    }
  }
  of_slice[slice][lane] = sum;
  __syncthreads();
  if (slice == 0 && c < g.channels) {
    for (int i = 1; i < kSlices; ++i) {
      sum += of_slice[i][lane];
    }
    dw[c * g.taps() + tap] = narrow<T>(sum);
  }
}

}  // namespace

void conv_depthwise_cuda(const KernelArgs& args, const ConvGeometry& g, ConvPass pass) {
  const cudaStream_t stream = stream_of(args);
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const T* first = args.in[0].as<T>();
    const T* second = args.in[1].as<T>();
    T* out = args.out[0].as<T>();
    if (pass == ConvPass::dw) {
      const dim3 grid(blocks_for(g.channels, kLanes), static_cast<unsigned>(g.taps()));
      depthwise_dw_kernel<T>
          <<<grid, dim3(kLanes, kSlices), 0, stream>>>(g, g.positions(), first, second, out);
    } else {
      const int64_t n = args.out[0].numel();
      const unsigned blocks = blocks_for(n, kThreads);
      if (pass == ConvPass::forward) {
        const T* bias = args.in.size() > 2 ? args.in[2].as<T>() : nullptr;
        depthwise_kernel<T><<<blocks, kThreads, 0, stream>>>(g, n, first, second, bias, out);
      } else {
        depthwise_dx_kernel<T><<<blocks, kThreads, 0, stream>>>(g, n, first, second, out);
      }
    }
    check_launch(args.op);
  });
}

}  // namespace lithe
