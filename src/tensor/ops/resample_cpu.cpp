#include <cstring>

#include "tensor/core/tensor.h"
#include "tensor/ops/conv.h"
#include "tensor/ops/parallel.h"

namespace lithe {
namespace {

// Channels summed at a time; the sums stay in registers.
constexpr int64_t kBlock = 64;

// Calls move(large offset, small offset) for each channel run: `large` [B, H f, W f, C] and, for
// pixel (y, x) of the f x f block, `small` [B, H, W, C f²] at the block's first channel + y f + x.
template <typename Move>
void for_blocks(const Shape& large, int64_t f, Move&& move) {
  const int64_t channels = large[3];
  const int64_t width = large[2] / f;
  parallel_for(large[0] * (large[1] / f), large[2] * f * channels, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin * width; p < end * width; ++p) {
      for (int64_t y = 0; y < f; ++y) {
        for (int64_t x = 0; x < f; ++x) {
          const int64_t pixel = (p / width * f + y) * large[2] + p % width * f + x;
          move(pixel * channels, p * channels * f * f + y * f + x);
        }
      }
    }
  });
}

}  // namespace

void upsample_nearest_cpu(const KernelArgs& args) {
  const int64_t f = args.attr<ResampleAttrs>().factor;
  const Shape& x = args.in[0].shape;
  const int64_t line = x[2] * x[3];
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* from = args.in[0].as<T>();
    T* to = args.out[0].as<T>();
    parallel_for(x[0] * x[1], line * f * f, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        T* first = to + r * f * line * f;
        for (int64_t column = 0; column < x[2]; ++column) {
          const T* pixel = from + r * line + column * x[3];
          for (int64_t i = 0; i < f; ++i) {
            std::copy_n(pixel, x[3], first + (column * f + i) * x[3]);
          }
        }
        for (int64_t i = 1; i < f; ++i) {
          std::copy_n(first, line * f, first + i * line * f);
        }
      }
    });
  });
}

void upsample_nearest_grad_cpu(const KernelArgs& args) {
  const int64_t f = args.attr<ResampleAttrs>().factor;
  const Shape& dx = args.out[0].shape;
  const int64_t channels = dx[3];
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* from = args.in[0].as<T>();
    T* to = args.out[0].as<T>();
    parallel_for(dx[0] * dx[1], dx[2] * channels * f * f, [=](int64_t begin, int64_t end) {
      for (int64_t p = begin * dx[2]; p < end * dx[2]; ++p) {
        const int64_t corner = (p / dx[2] * f * dx[2] + p % dx[2]) * f;  // pixel in dy
        for (int64_t c = 0; c < channels; c += kBlock) {
          const int64_t n = std::min(kBlock, channels - c);
          A sum[kBlock] = {};
          for (int64_t tap = 0; tap < f * f; ++tap) {
            const int64_t pixel = corner + tap / f * dx[2] * f + tap % f;
            const T* block = from + pixel * channels + c;
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) {
              sum[i] += static_cast<A>(block[i]);
            }
          }
          for (int64_t i = 0; i < n; ++i) {
            to[p * channels + c + i] = T(sum[i]);
          }
        }
      }
    });
  });
}

void pixel_unshuffle_cpu(const KernelArgs& args) {
  const int64_t f = args.attr<ResampleAttrs>().factor;
  const Shape& large = args.in[0].shape;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* from = args.in[0].as<T>();
    T* to = args.out[0].as<T>();
    for_blocks(large, f, [=](int64_t pixel, int64_t channel) {
      for (int64_t c = 0; c < large[3]; ++c) {
        to[channel + c * f * f] = from[pixel + c];
      }
    });
  });
}

void pixel_shuffle_cpu(const KernelArgs& args) {
  const int64_t f = args.attr<ResampleAttrs>().factor;
  const Shape& large = args.out[0].shape;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* from = args.in[0].as<T>();
    T* to = args.out[0].as<T>();
    for_blocks(large, f, [=](int64_t pixel, int64_t channel) {
      for (int64_t c = 0; c < large[3]; ++c) {
        to[pixel + c] = from[channel + c * f * f];
      }
    });
  });
}

}  // namespace lithe
