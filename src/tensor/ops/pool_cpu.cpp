#include <limits>

#include "tensor/core/tensor.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/conv_geometry.h"
#include "tensor/ops/parallel.h"

namespace lithe {
namespace {

// Channels handled at a time; what is summed or compared stays in registers.
constexpr int64_t kBlock = 64;

// x [B, H, W, C] and y [B, H', W', C].
struct PoolSizes {
  PoolAttrs a;
  int64_t batch, height, width, out_height, out_width, channels;
};

PoolSizes sizes(const PoolAttrs& a, const Shape& x, const Shape& y) {
  return {a, x[0], x[1], x[2], y[1], y[2], x[3]};
}

int64_t taps(const PoolSizes& s) { return int64_t{s.a.kernel_h} * s.a.kernel_w; }

// Calls f(output offset, first row, rows inside, first column, columns inside, first pixel of the
// image) for every window; offsets in elements, rows and columns in pixels.
template <typename F>
void for_windows(const PoolSizes& s, F&& f) {
  parallel_for(s.batch * s.out_height, s.out_width * taps(s) * s.channels,
               [&](int64_t begin, int64_t end) {
                 for (int64_t p = begin * s.out_width; p < end * s.out_width; ++p) {
                   const int64_t line = p / s.out_width;
                   const int64_t top = (line % s.out_height) * s.a.stride_h - s.a.pad_h;
                   const int64_t left = (p % s.out_width) * s.a.stride_w - s.a.pad_w;
                   const Window rows = taps_inside(top, s.a.kernel_h, s.height);
                   const Window columns = taps_inside(left, s.a.kernel_w, s.width);
                   f(p * s.channels, Window{top + rows.begin, top + rows.end},
                     Window{left + columns.begin, left + columns.end},
                     line / s.out_height * s.height * s.width);
                 }
               });
}

// dx of one pixel and block of channels is the sum over the windows that cover it, so threads never
// meet; add(sum, first channel, count, window's offset in dy, its line, its column, pixel h W + w).
template <typename T, typename Add>
void for_pixels(const PoolSizes& s, T* dx, Add&& add) {
  using A = acc_t<T>;
  parallel_for(s.batch * s.height, s.width * taps(s) * s.channels, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = begin * s.width; pixel < end * s.width; ++pixel) {
      const int64_t image = pixel / (s.width * s.height);
      const int64_t in_plane = pixel - image * s.width * s.height;
      const Window lines =
          windows_over(in_plane / s.width, s.a.kernel_h, s.a.stride_h, s.a.pad_h, s.out_height);
      const Window places =
          windows_over(in_plane % s.width, s.a.kernel_w, s.a.stride_w, s.a.pad_w, s.out_width);
      for (int64_t c = 0; c < s.channels; c += kBlock) {
        const int64_t n = std::min(kBlock, s.channels - c);
        A sum[kBlock] = {};
        for (int64_t line = lines.begin; line < lines.end; ++line) {
          for (int64_t place = places.begin; place < places.end; ++place) {
            const int64_t window = (image * s.out_height + line) * s.out_width + place;
            add(sum, n, window * s.channels + c, line, place, in_plane);
          }
        }
        for (int64_t i = 0; i < n; ++i) {
          dx[pixel * s.channels + c + i] = T(sum[i]);
        }
      }
    }
  });
}

}  // namespace

void avg_pool2d_cpu(const KernelArgs& args) {
  const PoolSizes s = sizes(args.attr<PoolAttrs>(), args.in[0].shape, args.out[0].shape);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    for_windows(s, [=](int64_t to, Window rows, Window columns, int64_t image) {
      const auto pixels = (rows.end - rows.begin) * (columns.end - columns.begin);
      const A factor = A(1) / static_cast<A>(pixels);
      for (int64_t c = 0; c < s.channels; c += kBlock) {
        const int64_t n = std::min(kBlock, s.channels - c);
        A sum[kBlock] = {};
        for (int64_t row = rows.begin; row < rows.end; ++row) {
          for (int64_t column = columns.begin; column < columns.end; ++column) {
            const T* from = x + (image + row * s.width + column) * s.channels + c;
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) {
              sum[i] += static_cast<A>(from[i]);
            }
          }
        }
        for (int64_t i = 0; i < n; ++i) {
          y[to + c + i] = T(sum[i] * factor);
        }
      }
    });
  });
}

void avg_pool2d_grad_cpu(const KernelArgs& args) {
  const PoolSizes s = sizes(args.attr<PoolGradAttrs>().pool, args.out[0].shape, args.in[0].shape);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dy = args.in[0].as<T>();
    for_pixels(s, args.out[0].as<T>(),
               [=](A* sum, int64_t n, int64_t from, int64_t line, int64_t place, int64_t) {
                 const Window rows =
                     taps_inside(line * s.a.stride_h - s.a.pad_h, s.a.kernel_h, s.height);
                 const Window columns =
                     taps_inside(place * s.a.stride_w - s.a.pad_w, s.a.kernel_w, s.width);
                 const auto pixels = (rows.end - rows.begin) * (columns.end - columns.begin);
                 const A factor = A(1) / static_cast<A>(pixels);
#pragma omp simd
                 for (int64_t i = 0; i < n; ++i) {
                   sum[i] += static_cast<A>(dy[from + i]) * factor;
                 }
               });
  });
}

void max_pool2d_cpu(const KernelArgs& args) {
  const PoolSizes s = sizes(args.attr<PoolAttrs>(), args.in[0].shape, args.out[0].shape);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    int32_t* indices = args.out[1].as<int32_t>();
    for_windows(s, [=](int64_t to, Window rows, Window columns, int64_t image) {
      for (int64_t c = 0; c < s.channels; c += kBlock) {
        const int64_t n = std::min(kBlock, s.channels - c);
        A best[kBlock];
        int32_t index[kBlock];
        std::fill_n(best, n, -std::numeric_limits<A>::infinity());
        std::fill_n(index, n, static_cast<int32_t>(rows.begin * s.width + columns.begin));
        for (int64_t row = rows.begin; row < rows.end; ++row) {
          for (int64_t column = columns.begin; column < columns.end; ++column) {
            const int64_t pixel = row * s.width + column;
            const T* from = x + (image + pixel) * s.channels + c;
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) {
              const A value = static_cast<A>(from[i]);
              const bool better = value > best[i] || value != value;  // NaN wins, to be seen
              best[i] = better ? value : best[i];
              index[i] = better ? static_cast<int32_t>(pixel) : index[i];
            }
          }
        }
        for (int64_t i = 0; i < n; ++i) {
          y[to + c + i] = T(best[i]);
          indices[to + c + i] = index[i];
        }
      }
    });
  });
}

void max_pool2d_grad_cpu(const KernelArgs& args) {
  const PoolSizes s = sizes(args.attr<PoolGradAttrs>().pool, args.out[0].shape, args.in[0].shape);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dy = args.in[0].as<T>();
    const int32_t* indices = args.in[1].as<int32_t>();
    for_pixels(s, args.out[0].as<T>(),
               [=](A* sum, int64_t n, int64_t from, int64_t, int64_t, int64_t pixel) {
                 const auto here = static_cast<int32_t>(pixel);
#pragma omp simd
                 for (int64_t i = 0; i < n; ++i) {
                   sum[i] += indices[from + i] == here ? static_cast<A>(dy[from + i]) : A(0);
                 }
               });
  });
}

}  // namespace lithe
