// Activations and their gradients on the way out of a product (cuda_warpgroup_product.h), with
// codes of what backward keeps. Device-only.
#pragma once

#include "tensor/ops/cuda_warpgroup_product.h"
#include "tensor/ops/saved_slopes_cuda.h"

namespace lithe::device {

// y = activation(x) of a product x, of which a code may be stored.
template <Activation kKind, typename T>
struct ActivationEpilogue {
  struct Loaded {};
  T* y;
  CodeTo of_x;
  CodeTo of_y;

  __device__ void begin(const product::Worker& /*worker*/) const {}
  __device__ Loaded load(int64_t /*at*/) const { return {}; }

  template <int kRows>
  __device__ void rows(const uint4 (&words)[kRows], const Loaded (&)[kRows], int64_t at, int step,
                       const bool (&inside)[kRows]) const {
    float v[kRows][8];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      unpack<T>(words[u], v[u]);
    }
    if (of_x.kind != SavedCode::Kind::none) {
      encode_lanes(of_x, v, at, step, inside);
    }
    uint4 out[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        v[u][j] = activate_fast<kKind>(v[u][j]);
      }
      out[u] = pack<T>(v[u]);
      if (inside[u]) {
        store_words(y + at + u * int64_t{step}, out[u]);
      }
    }
    if (of_y.kind != SavedCode::Kind::none) {
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
        unpack<T>(out[u], v[u]);  // as they are stored
      }
      encode_lanes(of_y, v, at, step, inside);
    }
  }
  __device__ void end(const product::Worker& /*worker*/, uint32_t /*sums*/, int /*tile*/,
                      int /*column*/, bool /*inside*/) const {}
};

// dx = dy slope(kept) of a product dy; its sums by column for every row of tiles go to `partial`
// [tiles, columns], unless that is null.
template <typename Slopes>
struct ActivationGradEpilogue {
  using T = typename Slopes::T;
  using Loaded = typename Slopes::template Loaded<8>;
  Slopes slopes;
  T* dx;
  float* partial;
  int columns;
  float sums[8] = {};

  __device__ void begin(const product::Worker& worker) const {
    slopes.make(worker.thread(), product::Worker::kThreads);
    product::Worker::meet();
  }
  __device__ Loaded load(int64_t at) const { return slopes.template load<8>(at); }

  template <int kRows>
  __device__ void rows(const uint4 (&words)[kRows], const Loaded (&loaded)[kRows], int64_t at,
                       int step, const bool (&inside)[kRows]) {
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      if (inside[u]) {
        const int64_t own = at + u * int64_t{step};
        float v[8];
        unpack<T>(words[u], v);
        slopes.template multiply<8>(loaded[u], own, v);
        const uint4 out = pack<T>(v);
        store_words(dx + own, out);
        unpack<T>(out, v);  // as they are stored
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          sums[j] += v[j];
        }
      }
    }
  }

  // In the order of the warps, whose sums lie by the first and the second four columns of lanes.
  __device__ void end(const product::Worker& worker, uint32_t memory, int tile, int column,
                      bool inside) {
    if (partial == nullptr) {
      return;
    }
    const auto at = [&](int warp, int half) {
      return memory + static_cast<uint32_t>(((warp * 2 + half) * 32 + worker.lane) * 16);
    };
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      store_shared(
          at(worker.warp, half),
          make_uint4(__float_as_uint(sums[4 * half]), __float_as_uint(sums[4 * half + 1]),
                     __float_as_uint(sums[4 * half + 2]), __float_as_uint(sums[4 * half + 3])));
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      sums[j] = 0;
    }
    product::Worker::meet();
    if (worker.warp < 2 && inside) {
      float total[4] = {};
#pragma unroll
      for (int warp = 0; warp < product::kWarps; ++warp) {
        const uint4 of = load_shared(at(warp, worker.warp));
        total[0] += __uint_as_float(of.x);
        total[1] += __uint_as_float(of.y);
        total[2] += __uint_as_float(of.z);
        total[3] += __uint_as_float(of.w);
      }
      *reinterpret_cast<float4*>(partial + int64_t{tile} * columns + column + 4 * worker.warp) =
          make_float4(total[0], total[1], total[2], total[3]);
    }
    product::Worker::meet();  // before the next tile's sums come
  }
};

}  // namespace lithe::device
