#include <cmath>

#include "tensor/core/tensor.h"
#include "tensor/ops/column_sum.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/norm_rows.h"

namespace lithe {
namespace {

struct Rows {
  explicit Rows(const Shape& x) : count(x.product(0, x.rank() - 1)), width(x.back()) {}
  int64_t count;
  int64_t width;
};

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
        const T* d = dy + r * rows.width;
        const T* v = x + r * rows.width;
        T* to = dx + r * rows.width;
        const auto slope = layer_norm_slope(d, v, gamma, rows.width, mean[r], rstd[r]);
#pragma omp simd
        for (int64_t i = 0; i < rows.width; ++i) {
          to[i] = T(slope.dx(static_cast<A>(d[i]), static_cast<A>(v[i]), static_cast<A>(gamma[i])));
        }
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
        add_layer_norm_parameters(dy + r * width, x + r * width, width, mean[r], rstd[r], sums,
                                  with_beta ? sums + width : nullptr);
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
        const A s = A(1) / std::sqrt(squares * norm_share<A>(width) + eps);
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
        const A slope = dot * norm_share<A>(width) * s * s;
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
