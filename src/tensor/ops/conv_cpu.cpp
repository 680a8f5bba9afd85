// Convolution as GEMMs over gathered patches (im2col), a bounded chunk of output positions at a
// time.
#include <cstring>

#include "tensor/core/convert.h"
#include "tensor/core/tensor.h"
#include "tensor/ops/blas.h"
#include "tensor/ops/conv_geometry.h"
#include "tensor/ops/parallel.h"

namespace lithe {
namespace {

template <typename A>
A* at(const KernelArgs& args, int64_t offset) {
  return offset < 0 ? nullptr
                    : reinterpret_cast<A*>(static_cast<std::byte*>(args.workspace) + offset);
}

template <typename To, typename From>
inline void copy_run(To* to, const From* from, int64_t n) {
  if constexpr (std::is_same_v<To, From>) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(To));
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      if constexpr (is_half_v<To>) {
        to[i].bits = To(from[i]).bits;  // copying the class would keep GCC from vectorising
      } else {
        to[i] = convert<To>(from[i]);
      }
    }
  }
}

template <typename To, typename From>
void convert_all(To* to, const From* from, int64_t n) {
  parallel_for(
      n, 1, [=](int64_t begin, int64_t end) { copy_run(to + begin, from + begin, end - begin); });
}

template <typename A>
void zero_all(A* to, int64_t n) {
  parallel_for(n, 1, [=](int64_t begin, int64_t end) { std::fill(to + begin, to + end, A(0)); });
}

// columns [count, patch] of one group from output positions [first, first + count).
template <typename T, typename A>
void gather_patches(const ConvGeometry& g, const T* x, int64_t group, int64_t first, int64_t count,
                    A* columns) {
  const int64_t c = g.group_in();
  // Without groups the channels of neighbouring taps are neighbours too: one run for each kernel
  // row.
  const bool one_run = g.attrs.groups == 1;
  parallel_for(count, g.patch(), [&](int64_t begin, int64_t end) {
    A* to = columns + begin * g.patch();
    for (int64_t p = first + begin; p < first + end; ++p) {
      const int64_t line = p / g.out_width;
      const int64_t image = line / g.out_height;
      const int64_t top = (line % g.out_height) * g.attrs.stride_h - g.attrs.pad_h;
      const int64_t left = (p % g.out_width) * g.attrs.stride_w - g.attrs.pad_w;
      const Window inside = taps_inside(left, g.kernel_w, g.width);
      for (int64_t ky = 0; ky < g.kernel_h; ++ky, to += g.kernel_w * c) {
        const int64_t row = top + ky;
        if (row < 0 || row >= g.height || inside.begin == inside.end) {
          std::fill_n(to, g.kernel_w * c, A(0));
          continue;
        }
        const T* from = x + ((image * g.height + row) * g.width + left) * g.channels + group * c;
        std::fill_n(to, inside.begin * c, A(0));
        if (one_run) {
          copy_run(to + inside.begin * c, from + inside.begin * c, (inside.end - inside.begin) * c);
        } else {
          for (int64_t kx = inside.begin; kx < inside.end; ++kx) {
            copy_run(to + kx * c, from + kx * g.channels, c);
          }
        }
        std::fill_n(to + inside.end * c, (g.kernel_w - inside.end) * c, A(0));
      }
    }
  });
}

// Adds columns [count, patch] of one group to dx [images, H, W, C], whose first image is
// `first_image`. Each image row collects what belongs to it, in a fixed order, so threads never
// meet.
template <typename A>
void scatter_patches(const ConvGeometry& g, const A* columns, int64_t group, int64_t first,
                     int64_t count, int64_t first_image, A* dx) {
  const int64_t c = g.group_in();
  const bool one_run = g.attrs.groups == 1;
  const int64_t from_image = first / g.image_positions();
  const int64_t to_image = (first + count - 1) / g.image_positions() + 1;
  const int64_t row_cost = g.out_width * g.patch() / g.attrs.stride_h;
  parallel_for((to_image - from_image) * g.height, row_cost, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t image = from_image + r / g.height;
      const int64_t row = r % g.height;
      A* to_row = dx + ((image - first_image) * g.height + row) * g.width * g.channels + group * c;
      const Window lines =
          windows_over(row, g.kernel_h, g.attrs.stride_h, g.attrs.pad_h, g.out_height);
      for (int64_t line = lines.begin; line < lines.end; ++line) {
        const int64_t ky = row + g.attrs.pad_h - line * g.attrs.stride_h;
        const int64_t line_first = (image * g.out_height + line) * g.out_width;
        const int64_t p_begin = std::max(first, line_first);
        const int64_t p_end = std::min(first + count, line_first + g.out_width);
        for (int64_t p = p_begin; p < p_end; ++p) {
          const int64_t left = (p - line_first) * g.attrs.stride_w - g.attrs.pad_w;
          const Window inside = taps_inside(left, g.kernel_w, g.width);
          const A* from = columns + (p - first) * g.patch() + ky * g.kernel_w * c;
          A* to = to_row + left * g.channels;
          if (one_run) {
#pragma omp simd
            for (int64_t i = inside.begin * c; i < inside.end * c; ++i) {
              to[i] += from[i];
            }
            continue;
          }
          for (int64_t kx = inside.begin; kx < inside.end; ++kx) {
#pragma omp simd
            for (int64_t i = 0; i < c; ++i) {
              to[kx * g.channels + i] += from[kx * c + i];
            }
          }
        }
      }
    }
  });
}

// The GEMM operand that holds the patches of one group, gathered only where x itself does not do.
template <typename A>
struct Patches {
  const A* data;
  int64_t stride;
};

template <typename T, typename A>
Patches<A> patches_of(const ConvGeometry& g, const T* x, int64_t group, int64_t first,
                      int64_t count, A* columns) {
  if constexpr (std::is_same_v<T, A>) {
    if (g.pointwise()) {
      return {x + first * g.channels + group * g.group_in(), g.channels};
    }
  }
  gather_patches(g, x, group, first, count, columns);
  return {columns, g.patch()};
}

// `data` itself, or its widened copy in `buffer` for 16-bit types.
template <typename T, typename A>
const A* widened(const T* data, int64_t n, A* buffer) {
  if constexpr (std::is_same_v<T, A>) {
    return data;
  } else {
    convert_all(buffer, data, n);
    return buffer;
  }
}

template <typename T>
void forward(const KernelArgs& args, const ConvGeometry& g, const ConvWorkspace& work) {
  using A = acc_t<T>;
  const T* x = args.in[0].as<T>();
  const T* bias = args.in.size() > 2 ? args.in[2].as<T>() : nullptr;
  T* y = args.out[0].as<T>();
  const A* weight = widened(args.in[1].as<T>(), g.weights(), at<A>(args, work.weight));
  const int64_t filters = g.out_channels;
  for (int64_t first = 0; first < g.positions(); first += work.rows) {
    const int64_t rows = std::min(work.rows, g.positions() - first);
    A* to = nullptr;
    if constexpr (std::is_same_v<T, A>) {
      to = y + first * filters;
    } else {
      to = at<A>(args, work.y);
    }
    if (bias != nullptr) {
      parallel_for(rows, filters, [=](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          copy_run(to + r * filters, bias, filters);
        }
      });
    }
    for (int64_t group = 0; group < g.attrs.groups; ++group) {
      const auto patches = patches_of(g, x, group, first, rows, at<A>(args, work.columns));
      const blas::Gemm product = {.transpose_b = true,
                                  .m = rows,
                                  .n = g.group_out(),
                                  .k = g.patch(),
                                  .lda = patches.stride,
                                  .ldb = g.patch(),
                                  .ldc = filters};
      blas::gemm(product, 1, patches.data, weight + group * g.group_out() * g.patch(),
                 bias == nullptr ? 0 : 1, to + group * g.group_out());
    }
    if constexpr (!std::is_same_v<T, A>) {
      convert_all(y + first * filters, to, rows * filters);
    }
  }
}

template <typename T>
void backward_dx(const KernelArgs& args, const ConvGeometry& g, const ConvWorkspace& work) {
  using A = acc_t<T>;
  constexpr bool kWiden = !std::is_same_v<T, A>;
  const T* dy = args.in[0].as<T>();
  const A* weight = widened(args.in[1].as<T>(), g.weights(), at<A>(args, work.weight));
  const int64_t filters = g.out_channels;
  const bool direct = g.pointwise() && !kWiden;
  for (int64_t image = 0; image < g.batch; image += work.images) {
    const int64_t images = std::min(work.images, g.batch - image);
    T* out = args.out[0].as<T>() + image * g.image();
    A* dx = nullptr;
    if constexpr (kWiden) {
      dx = at<A>(args, work.accumulator);
    } else {
      dx = out;
    }
    if (!direct) {
      zero_all(dx, images * g.image());
    }
    const int64_t last = (image + images) * g.image_positions();
    for (int64_t first = image * g.image_positions(); first < last; first += work.rows) {
      const int64_t rows = std::min(work.rows, last - first);
      const A* from = widened(dy + first * filters, rows * filters, at<A>(args, work.y));
      for (int64_t group = 0; group < g.attrs.groups; ++group) {
        A* to = direct ? dx + first * g.channels + group * g.group_in() : at<A>(args, work.columns);
        const blas::Gemm product = {.m = rows,
                                    .n = g.patch(),
                                    .k = g.group_out(),
                                    .lda = filters,
                                    .ldb = g.patch(),
                                    .ldc = direct ? g.channels : g.patch()};
        blas::gemm(product, 1, from + group * g.group_out(),
                   weight + group * g.group_out() * g.patch(), 0, to);
        if (!direct) {
          scatter_patches(g, to, group, first, rows, image, dx);
        }
      }
    }
    if constexpr (kWiden) {
      convert_all(out, dx, images * g.image());
    }
  }
}

template <typename T>
void backward_dw(const KernelArgs& args, const ConvGeometry& g, const ConvWorkspace& work) {
  using A = acc_t<T>;
  const T* x = args.in[0].as<T>();
  const T* dy = args.in[1].as<T>();
  A* dw = nullptr;
  if constexpr (std::is_same_v<T, A>) {
    dw = args.out[0].as<T>();
  } else {
    dw = at<A>(args, work.accumulator);
  }
  if (g.positions() == 0) {
    zero_all(dw, g.weights());
  }
  for (int64_t first = 0; first < g.positions(); first += work.rows) {
    const int64_t rows = std::min(work.rows, g.positions() - first);
    const A* from =
        widened(dy + first * g.out_channels, rows * g.out_channels, at<A>(args, work.y));
    for (int64_t group = 0; group < g.attrs.groups; ++group) {
      const auto patches = patches_of(g, x, group, first, rows, at<A>(args, work.columns));
      const blas::Gemm product = {.transpose_a = true,
                                  .m = g.group_out(),
                                  .n = g.patch(),
                                  .k = rows,
                                  .lda = g.out_channels,
                                  .ldb = patches.stride,
                                  .ldc = g.patch()};
      blas::gemm(product, 1, from + group * g.group_out(), patches.data, first == 0 ? 0 : 1,
                 dw + group * g.group_out() * g.patch());
    }
  }
  if constexpr (!std::is_same_v<T, A>) {
    convert_all(args.out[0].as<T>(), dw, g.weights());
  }
}

}  // namespace

void conv2d_cpu(const KernelArgs& args) {
  const ConvGeometry g = conv_geometry(args.in[0].shape, args.in[1].shape, args.attr<ConvAttrs>());
  const ConvWorkspace work = conv_workspace(g, ConvPass::forward, args.in[0].dtype);
  if (g.depthwise()) {
    depthwise_cpu(args, g, work);
    return;
  }
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() { forward<T>(args, g, work); });
}

void conv2d_dx_cpu(const KernelArgs& args) {
  const ConvGeometry g =
      conv_geometry_dx(args.in[0].shape, args.in[1].shape, args.attr<ConvDxAttrs>());
  const ConvWorkspace work = conv_workspace(g, ConvPass::dx, args.in[0].dtype);
  if (g.depthwise()) {
    depthwise_dx_cpu(args, g, work);
    return;
  }
  dispatch_floating(args.in[0].dtype, args.op,
                    [&]<typename T>() { backward_dx<T>(args, g, work); });
}

void conv2d_dw_cpu(const KernelArgs& args) {
  const ConvGeometry g =
      conv_geometry_dw(args.in[0].shape, args.in[1].shape, args.attr<ConvDwAttrs>());
  const ConvWorkspace work = conv_workspace(g, ConvPass::dw, args.in[0].dtype);
  if (g.depthwise()) {
    depthwise_dw_cpu(args, g, work);
    return;
  }
  dispatch_floating(args.in[0].dtype, args.op,
                    [&]<typename T>() { backward_dw<T>(args, g, work); });
}

}  // namespace lithe
