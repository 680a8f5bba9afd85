#include "tensor/core/tensor.h"
#include "tensor/ops/cuda_column_sum.h"
#include "tensor/ops/cuda_row.h"
#include "tensor/ops/kernels_cuda.h"
#include "tensor/ops/norm.h"

namespace lithe {
namespace {

using namespace device;

// Layer norm, or RMS norm where kCentered is false: then mean and beta are null and unused.
template <typename T>
struct NormForward {
  const T* x;
  const T* gamma;
  const T* beta;
  T* y;
  acc_t<T>* mean;
  acc_t<T>* rstd;
  int64_t rows;
  int64_t size;
  acc_t<T> eps;
};

template <typename T>
struct NormBackward {
  const T* dy;
  const T* x;
  const acc_t<T>* mean;
  const acc_t<T>* rstd;
  const T* gamma;
  T* dx;
  int64_t rows;
  int64_t size;
};

__device__ inline float inverse_root(float x) { return 1.0f / sqrtf(x); }
__device__ inline double inverse_root(double x) { return 1.0 / sqrt(x); }

template <bool kCentered, typename T, typename A = acc_t<T>>
__device__ inline void store_statistics(const NormForward<T>& p, int64_t row, A mean, A rstd) {
  if constexpr (kCentered) {
    p.mean[row] = mean;
  }
  p.rstd[row] = rstd;
}

template <bool kCentered, typename Config, typename T>
__global__ void __launch_bounds__(Config::kBlock) norm_kernel(const NormForward<T> p) {
  using A = acc_t<T>;
  constexpr int kV = Config::kVector;
  constexpr int kThreads = Config::kThreads;
  const int64_t row = Config::row();
  if (row >= p.rows) {
    return;
  }
  const int64_t at = row * p.size;
  const A share = A(1) / static_cast<A>(p.size);
  A v[Config::kElements];
  A sum = 0;
  Config::for_packs(p.size, [&](int e, int64_t column) {
    const Pack<T, kV> x = load<kV>(p.x + at + column);
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      v[e + j] = widen<A>(x.at[j]);
      sum += v[e + j];
    }
  });
  A mean = 0;
  if constexpr (kCentered) {
    mean = group_reduce<kThreads>(sum, Sum{}) * share;
  }
  A squares = 0;  // around the mean: the difference of two large sums would lose digits
  Config::for_packs(p.size, [&](int e, int64_t) {
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      squares += (v[e + j] - mean) * (v[e + j] - mean);
    }
  });
  const A rstd = inverse_root(group_reduce<kThreads>(squares, Sum{}) * share + p.eps);
  Config::for_packs(p.size, [&](int e, int64_t column) {
    const Pack<T, kV> gamma = load<kV>(p.gamma + column);
    Pack<T, kV> y;
    if constexpr (kCentered) {
      const Pack<T, kV> beta = load<kV>(p.beta + column);
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        y.at[j] =
            narrow<T>((v[e + j] - mean) * rstd * widen<A>(gamma.at[j]) + widen<A>(beta.at[j]));
      }
    } else {
#pragma unroll
      for (int j = 0; j < kV; ++j) {
        y.at[j] = narrow<T>(v[e + j] * rstd * widen<A>(gamma.at[j]));
      }
    }
    store(p.y + at + column, y);
  });
  if (Config::lane() == 0) {
    store_statistics<kCentered>(p, row, mean, rstd);
  }
}

// Reads the row three times.
template <bool kCentered, typename Config, typename T>
__global__ void __launch_bounds__(Config::kBlock) norm_long_kernel(const NormForward<T> p) {
  using A = acc_t<T>;
  constexpr int kThreads = Config::kThreads;
  const int64_t row = Config::row();
  const int64_t at = row * p.size;
  const A share = p.size == 0 ? A(0) : A(1) / static_cast<A>(p.size);
  A mean = 0;
  if constexpr (kCentered) {
    A sum = 0;
    Config::for_columns(p.size, [&](int64_t i) { sum += widen<A>(p.x[at + i]); });
    mean = group_reduce<kThreads>(sum, Sum{}) * share;
  }
  A squares = 0;
  Config::for_columns(p.size, [&](int64_t i) {
    const A d = widen<A>(p.x[at + i]) - mean;
    squares += d * d;
  });
  const A rstd = inverse_root(group_reduce<kThreads>(squares, Sum{}) * share + p.eps);
  Config::for_columns(p.size, [&](int64_t i) {
    A y = (widen<A>(p.x[at + i]) - mean) * rstd * widen<A>(p.gamma[i]);
    if constexpr (kCentered) {
      y += widen<A>(p.beta[i]);
    }
    p.y[at + i] = narrow<T>(y);
  });
  if (Config::lane() == 0) {
    store_statistics<kCentered>(p, row, mean, rstd);
  }
}

// With u = dy * gamma and d = x - mean: dx = rstd (u - mean(u) - d rstd² mean(u d)); RMS norm has
// no mean(u).
template <bool kCentered, typename Config, typename T>
__global__ void __launch_bounds__(Config::kBlock) norm_dx_kernel(const NormBackward<T> p) {
  using A = acc_t<T>;
  constexpr int kV = Config::kVector;
  constexpr int kThreads = Config::kThreads;
  const int64_t row = Config::row();
  if (row >= p.rows) {
    return;
  }
  const int64_t at = row * p.size;
  const A share = A(1) / static_cast<A>(p.size);
  const A rstd = p.rstd[row];
  A mean = 0;
  if constexpr (kCentered) {
    mean = p.mean[row];
  }
  A u[Config::kElements];
  A d[Config::kElements];
  A sum = 0;
  A dot = 0;
  Config::for_packs(p.size, [&](int e, int64_t column) {
    const Pack<T, kV> dy = load<kV>(p.dy + at + column);
    const Pack<T, kV> x = load<kV>(p.x + at + column);
    const Pack<T, kV> gamma = load<kV>(p.gamma + column);
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      u[e + j] = widen<A>(dy.at[j]) * widen<A>(gamma.at[j]);
      d[e + j] = widen<A>(x.at[j]) - mean;
      sum += u[e + j];
      dot += u[e + j] * d[e + j];
    }
  });
  A shift = 0;
  if constexpr (kCentered) {
    shift = group_reduce<kThreads>(sum, Sum{}) * share;
  }
  const A slope = group_reduce<kThreads>(dot, Sum{}) * share * rstd * rstd;
  Config::for_packs(p.size, [&](int e, int64_t column) {
    Pack<T, kV> dx;
#pragma unroll
    for (int j = 0; j < kV; ++j) {
      dx.at[j] = narrow<T>(rstd * (u[e + j] - shift - d[e + j] * slope));
    }
    store(p.dx + at + column, dx);
  });
}

template <bool kCentered, typename Config, typename T>
__global__ void __launch_bounds__(Config::kBlock) norm_dx_long_kernel(const NormBackward<T> p) {
  using A = acc_t<T>;
  constexpr int kThreads = Config::kThreads;
  const int64_t row = Config::row();
  const int64_t at = row * p.size;
  const A share = p.size == 0 ? A(0) : A(1) / static_cast<A>(p.size);
  const A rstd = p.rstd[row];
  A mean = 0;
  if constexpr (kCentered) {
    mean = p.mean[row];
  }
  A sum = 0;
  A dot = 0;
  Config::for_columns(p.size, [&](int64_t i) {
    const A u = widen<A>(p.dy[at + i]) * widen<A>(p.gamma[i]);
    sum += u;
    dot += u * (widen<A>(p.x[at + i]) - mean);
  });
  A shift = 0;
  if constexpr (kCentered) {
    shift = group_reduce<kThreads>(sum, Sum{}) * share;
  }
  const A slope = group_reduce<kThreads>(dot, Sum{}) * share * rstd * rstd;
  Config::for_columns(p.size, [&](int64_t i) {
    const A u = widen<A>(p.dy[at + i]) * widen<A>(p.gamma[i]);
    p.dx[at + i] = narrow<T>(rstd * (u - shift - (widen<A>(p.x[at + i]) - mean) * slope));
  });
}

template <bool kCentered, typename T>
void launch_norm(const KernelArgs& args, const NormForward<T>& p) {
  if (p.rows == 0) {
    return;
  }
  // Rows of no elements still have statistics; the general kernel makes them.
  const int64_t size = p.size == 0 ? INT64_MAX : p.size;
  dispatch_row<T>(size, [&]<typename Config>() {
    const unsigned blocks = blocks_for(p.rows, Config::kRowsOfBlock);
    if constexpr (Config::kElements == 0) {
      norm_long_kernel<kCentered, Config, T><<<blocks, Config::kBlock, 0, stream_of(args)>>>(p);
    } else {
      norm_kernel<kCentered, Config, T><<<blocks, Config::kBlock, 0, stream_of(args)>>>(p);
    }
    check_launch(args.op);
  });
}

template <bool kCentered, typename T>
void launch_norm_dx(const KernelArgs& args, const NormBackward<T>& p) {
  if (p.rows == 0 || p.size == 0) {
    return;
  }
  dispatch_row<T>(p.size, [&]<typename Config>() {
    const unsigned blocks = blocks_for(p.rows, Config::kRowsOfBlock);
    if constexpr (Config::kElements == 0) {
      norm_dx_long_kernel<kCentered, Config, T><<<blocks, Config::kBlock, 0, stream_of(args)>>>(p);
    } else {
      norm_dx_kernel<kCentered, Config, T><<<blocks, Config::kBlock, 0, stream_of(args)>>>(p);
    }
    check_launch(args.op);
  });
}

// xhat = (x - mean) rstd; dgamma = sum(dy xhat), dbeta = sum(dy).
template <bool kCentered, int kSums, int kVector, typename T>
struct ScaleTerm {
  const T* dy;
  const T* x;
  const acc_t<T>* mean;
  const acc_t<T>* rstd;
  int64_t columns;
  __device__ void add(int64_t row, int64_t column, acc_t<T> (&sums)[kSums][kVector]) const {
    using A = acc_t<T>;
    const Pack<T, kVector> d = load<kVector>(dy + row * columns + column);
    const Pack<T, kVector> v = load<kVector>(x + row * columns + column);
    const A scale = rstd[row];
    A center = 0;
    if constexpr (kCentered) {
      center = mean[row];
    }
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const A upstream = widen<A>(d.at[j]);
      sums[0][j] += upstream * ((widen<A>(v.at[j]) - center) * scale);
      if constexpr (kSums > 1) {
        sums[1][j] += upstream;
      }
    }
  }
};

template <bool kCentered, int kSums, typename T>
void scale_gradient(const KernelArgs& args, const acc_t<T>* mean, const acc_t<T>* rstd) {
  const Shape& shape = args.in[0].shape;
  const int64_t columns = shape.back();
  const T* dy = args.in[0].as<T>();
  const T* x = args.in[1].as<T>();
  const auto term = [=]<int kVector>() {
    return ScaleTerm<kCentered, kSums, kVector, T>{dy, x, mean, rstd, columns};
  };
  T* second = nullptr;
  if constexpr (kSums > 1) {
    second = args.out[1].as<T>();
  }
  column_sum<kSums, T>(args, shape.product(0, shape.rank() - 1), columns, term, args.out[0].as<T>(),
                       second);
}

int64_t rows_of(const Shape& x) { return x.product(0, x.rank() - 1); }

}  // namespace

void layer_norm_cuda(const KernelArgs& args) {
  const Shape& shape = args.in[0].shape;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    launch_norm<true, T>(args, {.x = args.in[0].as<T>(),
                                .gamma = args.in[1].as<T>(),
                                .beta = args.in[2].as<T>(),
                                .y = args.out[0].as<T>(),
                                .mean = args.out[1].as<A>(),
                                .rstd = args.out[2].as<A>(),
                                .rows = rows_of(shape),
                                .size = shape.back(),
                                .eps = static_cast<A>(args.attr<NormAttrs>().eps)});
  });
}

void rms_norm_cuda(const KernelArgs& args) {
  const Shape& shape = args.in[0].shape;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    launch_norm<false, T>(args, {.x = args.in[0].as<T>(),
                                 .gamma = args.in[1].as<T>(),
                                 .beta = nullptr,
                                 .y = args.out[0].as<T>(),
                                 .mean = nullptr,
                                 .rstd = args.out[1].as<A>(),
                                 .rows = rows_of(shape),
                                 .size = shape.back(),
                                 .eps = static_cast<A>(args.attr<NormAttrs>().eps)});
  });
}

void layer_norm_dx_cuda(const KernelArgs& args) {
  const Shape& shape = args.in[0].shape;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    launch_norm_dx<true, T>(args, {.dy = args.in[0].as<T>(),
                                   .x = args.in[1].as<T>(),
                                   .mean = args.in[2].as<A>(),
                                   .rstd = args.in[3].as<A>(),
                                   .gamma = args.in[4].as<T>(),
                                   .dx = args.out[0].as<T>(),
                                   .rows = rows_of(shape),
                                   .size = shape.back()});
  });
}

void rms_norm_dx_cuda(const KernelArgs& args) {
  const Shape& shape = args.in[0].shape;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    launch_norm_dx<false, T>(args, {.dy = args.in[0].as<T>(),
                                    .x = args.in[1].as<T>(),
                                    .mean = nullptr,
                                    .rstd = args.in[2].as<A>(),
                                    .gamma = args.in[3].as<T>(),
                                    .dx = args.out[0].as<T>(),
                                    .rows = rows_of(shape),
                                    .size = shape.back()});
  });
}

void layer_norm_dgamma_cuda(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    if (args.attr<NormGradAttrs>().with_beta) {
      scale_gradient<true, 2, T>(args, args.in[2].as<A>(), args.in[3].as<A>());
    } else {
      scale_gradient<true, 1, T>(args, args.in[2].as<A>(), args.in[3].as<A>());
    }
  });
}

void rms_norm_dgamma_cuda(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    scale_gradient<false, 1, T>(args, nullptr, args.in[2].as<acc_t<T>>());
  });
}

}  // namespace lithe
