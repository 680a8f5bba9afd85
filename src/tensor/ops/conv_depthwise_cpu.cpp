// Depthwise convolution: every channel has its own kernel, so a GEMM would be all gathering. Loops
// run over channels, which are contiguous, with the weight transposed to [taps, C] once.
#include "tensor/core/convert.h"
#include "tensor/core/tensor.h"
#include "tensor/ops/conv_geometry.h"
#include "tensor/ops/parallel.h"

namespace lithe {
namespace {

// Channels summed at a time; the sums stay in registers.
constexpr int64_t kBlock = 64;

template <typename A>
A* scratch(const KernelArgs& args, int64_t offset) {
  return reinterpret_cast<A*>(static_cast<std::byte*>(args.workspace) + offset);
}

template <typename T, typename A>
inline void add_product(A* sum, const T* a, const A* b, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    sum[i] += static_cast<A>(a[i]) * b[i];
  }
}

template <typename T, typename A>
void transpose_weight(const ConvGeometry& g, const T* weight, A* to) {
  for (int64_t t = 0; t < g.taps(); ++t) {
    for (int64_t c = 0; c < g.channels; ++c) {
      to[t * g.channels + c] = static_cast<A>(weight[c * g.taps() + t]);
    }
  }
}

}  // namespace

void depthwise_cpu(const KernelArgs& args, const ConvGeometry& g, const ConvWorkspace& work) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    const T* bias = args.in.size() > 2 ? args.in[2].as<T>() : nullptr;
    T* y = args.out[0].as<T>();
    A* weight = scratch<A>(args, work.weight);
    transpose_weight(g, args.in[1].as<T>(), weight);
    const int64_t cost = g.out_width * g.taps() * g.channels;
    parallel_for(g.batch * g.out_height, cost, [&](int64_t begin, int64_t end) {
      for (int64_t position = begin * g.out_width; position < end * g.out_width; ++position) {
        const int64_t line = position / g.out_width;
        const int64_t top = (line % g.out_height) * g.attrs.stride_h - g.attrs.pad_h;
        const int64_t left = (position % g.out_width) * g.attrs.stride_w - g.attrs.pad_w;
        const Window rows = taps_inside(top, g.kernel_h, g.height);
        const Window columns = taps_inside(left, g.kernel_w, g.width);
        const int64_t image_row = line / g.out_height * g.height + top;
        for (int64_t c = 0; c < g.channels; c += kBlock) {
          const int64_t n = std::min(kBlock, g.channels - c);
          A sum[kBlock];
          for (int64_t i = 0; i < n; ++i) {
            sum[i] = bias == nullptr ? A(0) : static_cast<A>(bias[c + i]);
          }
          for (int64_t ky = rows.begin; ky < rows.end; ++ky) {
            for (int64_t kx = columns.begin; kx < columns.end; ++kx) {
              const T* from = x + ((image_row + ky) * g.width + left + kx) * g.channels + c;
              add_product(sum, from, weight + (ky * g.kernel_w + kx) * g.channels + c, n);
            }
          }
          for (int64_t i = 0; i < n; ++i) {
            y[position * g.channels + c + i] = T(sum[i]);
          }
        }
      }
    });
  });
}

void depthwise_dx_cpu(const KernelArgs& args, const ConvGeometry& g, const ConvWorkspace& work) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dy = args.in[0].as<T>();
    T* dx = args.out[0].as<T>();
    A* weight = scratch<A>(args, work.weight);
    transpose_weight(g, args.in[1].as<T>(), weight);
    const int64_t cost = g.width * g.taps() * g.channels;
    parallel_for(g.batch * g.height, cost, [&](int64_t begin, int64_t end) {
      for (int64_t pixel = begin * g.width; pixel < end * g.width; ++pixel) {
        const int64_t row = pixel / g.width % g.height;
        const int64_t column = pixel % g.width;
        const int64_t image_line = pixel / (g.width * g.height) * g.out_height;
        const Window lines =
            windows_over(row, g.kernel_h, g.attrs.stride_h, g.attrs.pad_h, g.out_height);
        const Window places =
            windows_over(column, g.kernel_w, g.attrs.stride_w, g.attrs.pad_w, g.out_width);
        for (int64_t c = 0; c < g.channels; c += kBlock) {
          const int64_t n = std::min(kBlock, g.channels - c);
          A sum[kBlock] = {};
          for (int64_t line = lines.begin; line < lines.end; ++line) {
            const int64_t ky = row + g.attrs.pad_h - line * g.attrs.stride_h;
            for (int64_t place = places.begin; place < places.end; ++place) {
              const int64_t kx = column + g.attrs.pad_w - place * g.attrs.stride_w;
              const T* from = dy + ((image_line + line) * g.out_width + place) * g.channels + c;
              add_product(sum, from, weight + (ky * g.kernel_w + kx) * g.channels + c, n);
            }
          }
          for (int64_t i = 0; i < n; ++i) {
            dx[pixel * g.channels + c + i] = T(sum[i]);
          }
        }
      }
    });
  });
}

void depthwise_dw_cpu(const KernelArgs& args, const ConvGeometry& g, const ConvWorkspace& work) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    const T* dy = args.in[1].as<T>();
    T* dw = args.out[0].as<T>();
    A* partial = scratch<A>(args, work.accumulator);
    const int64_t size = g.taps() * g.channels;
    const int64_t lines = g.batch * g.out_height;
    const int64_t slices = work.slices;
    parallel_for(slices, lines * g.out_width * size, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        A* sum = partial + s * size;
        std::fill_n(sum, size, A(0));
        const int64_t last = lines * (s + 1) / slices * g.out_width;
        for (int64_t position = lines * s / slices * g.out_width; position < last; ++position) {
          const int64_t line = position / g.out_width;
          const int64_t top = (line % g.out_height) * g.attrs.stride_h - g.attrs.pad_h;
          const int64_t left = (position % g.out_width) * g.attrs.stride_w - g.attrs.pad_w;
          const Window rows = taps_inside(top, g.kernel_h, g.height);
          const Window columns = taps_inside(left, g.kernel_w, g.width);
          const int64_t image_row = line / g.out_height * g.height + top;
          const T* slope = dy + position * g.channels;
          for (int64_t ky = rows.begin; ky < rows.end; ++ky) {
            for (int64_t kx = columns.begin; kx < columns.end; ++kx) {
              const T* from = x + ((image_row + ky) * g.width + left + kx) * g.channels;
              A* to = sum + (ky * g.kernel_w + kx) * g.channels;
#pragma omp simd
              for (int64_t c = 0; c < g.channels; ++c) {
                to[c] += static_cast<A>(slope[c]) * static_cast<A>(from[c]);
              }
            }
          }
        }
      }
    });
    for (int64_t c = 0; c < g.channels; ++c) {
      for (int64_t t = 0; t < g.taps(); ++t) {
        A sum = 0;
        for (int64_t s = 0; s < slices; ++s) {
          sum += partial[s * size + t * g.channels + c];
        }
        dw[c * g.taps() + t] = T(sum);
      }
    }
  });
}

}  // namespace lithe
