#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_row.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/softmax.h"
#include "tensor/ops/vector_math.h"

namespace lithe {
namespace {

using namespace device;

// x [rows, size]; `mask` [rows / rows_of_batch, size] or null; `queries` 0: not causal.
template <typename T>
struct Scores {
  const T* x;
  const bool* mask;
  int64_t rows;
  int64_t size;
  int64_t rows_of_batch;
  int64_t queries;
  acc_t<T> scale;

  // How many of a row's first positions may be visible.
  __device__ int64_t visible(int64_t row) const {
    if (queries == 0) {
      return size;
    }
    const int64_t n = row % queries + size - queries + 1;
    return n < 0 ? 0 : (n > size ? size : n);
  }
  __device__ const bool* mask_of(int64_t row) const {
    return mask == nullptr ? nullptr : mask + row / rows_of_batch * size;
  }
};

template <typename A>
__device__ inline A lowest() {
  return -static_cast<A>(INFINITY);
}

// A sum of 0 means that nothing is visible: such rows are zeros.
template <typename A>
__device__ inline A inverse_of(A sum) {
  return sum == A(0) ? A(0) : A(1) / sum;
}

// kHides: a mask or causality hides some positions.
template <typename Config, bool kHides, typename T>
__global__ void __launch_bounds__(Config::kBlock) softmax_kernel(const Scores<T> in, T* y) {
  using A = acc_t<T>;
  constexpr int kV = Config::kVector;
  const int64_t row = Config::row();
  if (row >= in.rows) {
    return;
  }
  const T* x = in.x + row * in.size;
  // Nothing but loads: all of them are in flight together.
  Pack<T, kV> packs[Config::kPacks] = {};
  Config::for_packs(in.size, [&](int e, int column) { packs[e / kV] = load<kV>(x + column); });
  A v[Config::kElements];
#pragma unroll
  for (A& value : v) {
    value = lowest<A>();
  }
  Config::for_packs(in.size, [&](int e, int) {
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      v[e + j] = widen<A>(packs[e / kV].at[j]) * in.scale;
    }
  });
  uint32_t seen = 0;  // bit e: v[e] is visible
  if constexpr (kHides) {
    const bool* mask = in.mask_of(row);
    const int64_t n = in.visible(row);
    Config::for_packs(in.size, [&](int e, int column) {
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        const bool is_visible = column + j < n && (mask == nullptr || mask[column + j]);
        seen |= static_cast<uint32_t>(is_visible) << (e + j);
        v[e + j] = is_visible ? v[e + j] : lowest<A>();
      }
    });
  }
  A largest = lowest<A>();
#pragma unroll
  for (const A value : v) {
    largest = Largest{}(largest, value);
  }
  largest = group_reduce<Config::kThreads>(largest, Largest{});
  A sum = 0;
#pragma unroll
  for (int e = 0; e < Config::kElements; ++e) {
    const bool counts = !kHides || ((seen >> e) & 1u) != 0;
    v[e] = counts ? vec::exp(v[e] - largest) : A(0);
    sum += v[e];
  }
  const A inverse = inverse_of(group_reduce<Config::kThreads>(sum, Sum{}));
  Config::for_packs(in.size, [&](int e, int64_t column) {
    Pack<T, kV> pack;
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      pack.at[j] = narrow<T>(v[e + j] * inverse);
    }
    store(y + row * in.size + column, pack);
  });
}

// Reads the row three times.
template <typename Config, typename T>
__global__ void __launch_bounds__(Config::kBlock) softmax_long_kernel(const Scores<T> in, T* y) {
  using A = acc_t<T>;
  const int64_t row = Config::row();
  const T* x = in.x + row * in.size;
  const bool* mask = in.mask_of(row);
  const int64_t n = in.visible(row);
  const auto is_visible = [&](int64_t i) { return mask == nullptr || mask[i]; };
  A largest = lowest<A>();
  Config::for_columns(n, [&](int64_t i) {
    largest = is_visible(i) ? Largest{}(largest, widen<A>(x[i]) * in.scale) : largest;
  });
  largest = group_reduce<Config::kThreads>(largest, Largest{});
  A sum = 0;
  Config::for_columns(n, [&](int64_t i) {
    sum += is_visible(i) ? vec::exp(widen<A>(x[i]) * in.scale - largest) : A(0);
  });
  const A inverse = inverse_of(group_reduce<Config::kThreads>(sum, Sum{}));
  Config::for_columns(in.size, [&](int64_t i) {
    const bool shown = i < n && is_visible(i);
    const A e = shown ? vec::exp(widen<A>(x[i]) * in.scale - largest) : A(0);
    y[row * in.size + i] = narrow<T>(e * inverse);
  });
}

// dx = scale p (dp - sum(dp p)).
template <typename Config, typename T>
__global__ void __launch_bounds__(Config::kBlock)
    softmax_grad_kernel(int64_t rows, int64_t size, acc_t<T> scale, const T* dp, const T* p,
                        T* dx) {
  using A = acc_t<T>;
  constexpr int kV = Config::kVector;
  const int64_t row = Config::row();
  if (row >= rows) {
    return;
  }
  const int64_t at = row * size;
  A upstream[Config::kElements];
  A probability[Config::kElements];
  A sum = 0;
  Config::for_packs(size, [&](int e, int64_t column) {
    const Pack<T, kV> u = load<kV>(dp + at + column);
    const Pack<T, kV> q = load<kV>(p + at + column);
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      upstream[e + j] = widen<A>(u.at[j]);
      probability[e + j] = widen<A>(q.at[j]);
      sum += upstream[e + j] * probability[e + j];
    }
  });
  sum = group_reduce<Config::kThreads>(sum, Sum{});
  Config::for_packs(size, [&](int e, int64_t column) {
    Pack<T, kV> pack;
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      pack.at[j] = narrow<T>(scale * probability[e + j] * (upstream[e + j] - sum));
    }
    store(dx + at + column, pack);
  });
}

template <typename Config, typename T>
__global__ void __launch_bounds__(Config::kBlock)
    softmax_grad_long_kernel(int64_t size, acc_t<T> scale, const T* dp, const T* p, T* dx) {
  using A = acc_t<T>;
  const int64_t at = Config::row() * size;
  A sum = 0;
  Config::for_columns(size, [&](int64_t i) { sum += widen<A>(dp[at + i]) * widen<A>(p[at + i]); });
  sum = group_reduce<Config::kThreads>(sum, Sum{});
  Config::for_columns(size, [&](int64_t i) {
    dx[at + i] = narrow<T>(scale * widen<A>(p[at + i]) * (widen<A>(dp[at + i]) - sum));
  });
}

}  // namespace

void softmax_cuda(const KernelArgs& args) {
  const auto attrs = args.attr<SoftmaxAttrs>();
  const Shape& shape = args.in[0].shape;
  if (args.out[0].numel() == 0) {
    return;
  }
  const int64_t rows = shape.product(0, shape.rank() - 1);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const Scores<T> scores{.x = args.in[0].as<T>(),
                           .mask = args.in.size() > 1 ? args.in[1].as<bool>() : nullptr,
                           .rows = rows,
                           .size = shape.back(),
                           .rows_of_batch = rows / (shape.rank() > 1 ? shape[0] : rows),
                           .queries = attrs.causal ? shape.back(1) : 0,
                           .scale = static_cast<acc_t<T>>(attrs.scale)};
    T* y = args.out[0].as<T>();
    dispatch_row<T>(scores.size, [&]<typename Config>() {
      const unsigned blocks = blocks_for(rows, Config::kRowsOfBlock);
      if constexpr (Config::kElements == 0) {
        softmax_long_kernel<Config, T><<<blocks, Config::kBlock, 0, stream_of(args)>>>(scores, y);
      } else {
        const auto kernel = scores.mask != nullptr || scores.queries != 0
                                ? softmax_kernel<Config, true, T>
                                : softmax_kernel<Config, false, T>;
        kernel<<<blocks, Config::kBlock, 0, stream_of(args)>>>(scores, y);
      }
      check_launch(args.op);
    });
  });
}

void softmax_grad_cuda(const KernelArgs& args) {
  const int64_t size = args.out[0].shape.back();
  if (args.out[0].numel() == 0) {
    return;
  }
  const int64_t rows = args.out[0].numel() / size;
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const auto scale = static_cast<acc_t<T>>(args.attr<SoftmaxAttrs>().scale);
    const T* dp = args.in[0].as<T>();
    const T* p = args.in[1].as<T>();
    T* dx = args.out[0].as<T>();
    dispatch_row<T>(size, [&]<typename Config>() {
      const unsigned blocks = blocks_for(rows, Config::kRowsOfBlock);
      if constexpr (Config::kElements == 0) {
        softmax_grad_long_kernel<Config, T>
            <<<blocks, Config::kBlock, 0, stream_of(args)>>>(size, scale, dp, p, dx);
      } else {
        softmax_grad_kernel<Config, T>
            <<<blocks, Config::kBlock, 0, stream_of(args)>>>(rows, size, scale, dp, p, dx);
      }
      check_launch(args.op);
    });
  });
}

}  // namespace lithe
