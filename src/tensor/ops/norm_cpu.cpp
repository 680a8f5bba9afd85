#include <cmath>

#include "tensor/core/tensor.h"
#include "tensor/ops/column_sum.h"
#include "tensor/ops/norm.h"

namespace lithe {
namespace {

struct Rows {
  explicit Rows(const Shape& x) : count(x.product(0, x.rank() - 1)), width(x.back()) {}
  int64_t count;
  int64_t width;
};

template <typename A>
A inverse(int64_t width) {
  return width == 0 ? A(0) : A(1) / static_cast<A>(width);
}

template <typename T, typename A = acc_t<T>>
void layer_norm_row(const T* x, const T* gamma, const T* beta, T* y, int64_t width, A eps, A* mean,
                    A* rstd) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) {
    sum += static_cast<A>(x[i]);
  }
  const A m = sum * inverse<A>(width);
  A squares = 0;  // around the mean: the difference of two large sums would lose digits
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < width; ++i) {
    const A d = static_cast<A>(x[i]) - m;
    squares += d * d;
  }
  const A r = A(1) / std::sqrt(squares * inverse<A>(width) + eps);
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const A scaled = (static_cast<A>(x[i]) - m) * r * static_cast<A>(gamma[i]);
    y[i] = T(scaled + static_cast<A>(beta[i]));
  }
  *mean = m;
  *rstd = r;
}

// With u = dy * gamma: dx = rstd (u - mean(u) - xhat mean(u xhat)).
template <typename T, typename A = acc_t<T>>
void layer_norm_dx_row(const T* dy, const T* x, const T* gamma, T* dx, int64_t width, A mean,
                       A rstd) {
  A sum = 0;
  A dot = 0;
#pragma omp simd reduction(+ : sum, dot)
  for (int64_t i = 0; i < width; ++i) {
    const A u = static_cast<A>(dy[i]) * static_cast<A>(gamma[i]);
    sum += u;
    dot += u * (static_cast<A>(x[i]) - mean);
  }
  const A shift = sum * inverse<A>(width);
  const A slope = dot * inverse<A>(width) * rstd * rstd;
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const A u = static_cast<A>(dy[i]) * static_cast<A>(gamma[i]);
    dx[i] = T(rstd * (u - shift - (static_cast<A>(x[i]) - mean) * slope));
  }
}

}  // namespace

void layer_norm_cpu(const KernelArgs& args) {
  const Rows rows(args.in[0].shape);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    const T* gamma = args.in[1].as<T>();
    const T* beta = args.in[2].as<T>();
    T* y = args.out[0].as<T>();
    A* mean = args.out[1].as<A>();
    A* rstd = args.out[2].as<A>();
    const A eps = static_cast<A>(args.attr<NormAttrs>().eps);
    parallel_for(rows.count, rows.width * 2, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        layer_norm_row(x + r * rows.width, gamma, beta, y + r * rows.width, rows.width, eps,
                       mean + r, rstd + r);
      }
    });
  });
}

void layer_norm_dx_cpu(const KernelArgs& args) {
  const Rows rows(args.in[0].shape);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dy = args.in[0].as<T>();
    const T* x = args.in[1].as<T>();
    const A* mean = args.in[2].as<A>();
    const A* rstd = args.in[3].as<A>();
    const T* gamma = args.in[4].as<T>();
    T* dx = args.out[0].as<T>();
    parallel_for(rows.count, rows.width * 2, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t at = r * rows.width;
        layer_norm_dx_row(dy + at, x + at, gamma, dx + at, rows.width, mean[r], rstd[r]);
      }
    });
  });
}

void layer_norm_dgamma_cpu(const KernelArgs& args) {
  const Rows rows(args.in[0].shape);
  const bool with_beta = args.attr<NormGradAttrs>().with_beta;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dy = args.in[0].as<T>();
    const T* x = args.in[1].as<T>();
    const A* mean = args.in[2].as<A>();
    const A* rstd = args.in[3].as<A>();
    T* dgamma = args.out[0].as<T>();
    T* dbeta = with_beta ? args.out[1].as<T>() : nullptr;
    const int64_t width = rows.width;
    const auto add = [=](int64_t begin, int64_t end, A* sums) {
      for (int64_t r = begin; r < end; ++r) {
        const T* d = dy + r * width;
        const T* v = x + r * width;
        const A m = mean[r];
        const A s = rstd[r];
        A* beta_sums = sums + width;
        if (with_beta) {
#pragma omp simd
          for (int64_t i = 0; i < width; ++i) {
            sums[i] += static_cast<A>(d[i]) * ((static_cast<A>(v[i]) - m) * s);
            beta_sums[i] += static_cast<A>(d[i]);
          }
        } else {
#pragma omp simd
          for (int64_t i = 0; i < width; ++i) {
            sums[i] += static_cast<A>(d[i]) * ((static_cast<A>(v[i]) - m) * s);
          }
        }
      }
    };
    const auto store = [=](int64_t i, A total) {
      (i < width ? dgamma[i] : dbeta[i - width]) = T(total);
    };
    column_sum(rows.count, with_beta ? 2 * width : width, 2 * width,
               static_cast<A*>(args.workspace), add, store);
  });
}

void rms_norm_cpu(const KernelArgs& args) {
  const Rows rows(args.in[0].shape);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* x = args.in[0].as<T>();
    const T* gamma = args.in[1].as<T>();
    T* y = args.out[0].as<T>();
    A* rstd = args.out[1].as<A>();
    const A eps = static_cast<A>(args.attr<NormAttrs>().eps);
    const int64_t width = rows.width;
    parallel_for(rows.count, width * 2, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* from = x + r * width;
        T* to = y + r * width;
        A squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; ++i) {
          squares += static_cast<A>(from[i]) * static_cast<A>(from[i]);
        }
        const A s = A(1) / std::sqrt(squares * inverse<A>(width) + eps);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          to[i] = T(static_cast<A>(from[i]) * s * static_cast<A>(gamma[i]));
        }
        rstd[r] = s;
      }
    });
  });
}

// With u = dy * gamma: dx = rstd (u - x rstd² mean(u x)).
void rms_norm_dx_cpu(const KernelArgs& args) {
  const Rows rows(args.in[0].shape);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dy = args.in[0].as<T>();
    const T* x = args.in[1].as<T>();
    const A* rstd = args.in[2].as<A>();
    const T* gamma = args.in[3].as<T>();
    T* dx = args.out[0].as<T>();
    const int64_t width = rows.width;
    parallel_for(rows.count, width * 2, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* d = dy + r * width;
        const T* v = x + r * width;
        T* to = dx + r * width;
        A dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < width; ++i) {
          dot += static_cast<A>(d[i]) * static_cast<A>(gamma[i]) * static_cast<A>(v[i]);
        }
        const A s = rstd[r];
        const A slope = dot * inverse<A>(width) * s * s;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          const A u = static_cast<A>(d[i]) * static_cast<A>(gamma[i]);
          to[i] = T(s * (u - static_cast<A>(v[i]) * slope));
        }
      }
    });
  });
}

void rms_norm_dgamma_cpu(const KernelArgs& args) {
  const Rows rows(args.in[0].shape);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dy = args.in[0].as<T>();
    const T* x = args.in[1].as<T>();
    const A* rstd = args.in[2].as<A>();
    T* dgamma = args.out[0].as<T>();
    const int64_t width = rows.width;
    const auto add = [=](int64_t begin, int64_t end, A* sums) {
      for (int64_t r = begin; r < end; ++r) {
        const T* d = dy + r * width;
        const T* v = x + r * width;
        const A s = rstd[r];
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          sums[i] += static_cast<A>(d[i]) * (static_cast<A>(v[i]) * s);
        }
      }
    };
    column_sum(rows.count, width, 2 * width, static_cast<A*>(args.workspace), add,
               [=](int64_t i, A total) { dgamma[i] = T(total); });
  });
}

}  // namespace lithe
