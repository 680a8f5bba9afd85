#include "tensor/ops/residual_norm.h"

#include <algorithm>
#include <array>

#include "tensor/ops/column_sum.h"
#include "tensor/ops/norm_rows.h"
#include "tensor/ops/random_words.h"

namespace lithe {
namespace {

// The mask of one site in one step; without dropout everything is kept.
class Mask {
 public:
  Mask(const DropoutAttrs& attrs, const KernelArgs& args, size_t rng)
      : threshold_(dropout_threshold(attrs.p)), scale_(dropout_scale(attrs.p)) {
    if (attrs.p > 0) {
      const auto* numbers = args.in[rng].as<int64_t>();
      seed_ = static_cast<uint64_t>(numbers[0]);
      stream_ = mix(attrs.key, static_cast<uint64_t>(numbers[1]));
    }
  }
  double scale() const { return scale_; }

  // Calls body(begin, end, lane, threshold) for ranges of the row whose first element is number
  // `at`: lane[i - begin] >= threshold where element i is kept.
  template <typename Body>
  void for_row(int64_t at, int64_t width, Body&& body) const {
    alignas(64) std::array<uint16_t, kLanesAtOnce> lanes;
    for (int64_t begin = 0; begin < width;) {
      const int64_t first = at + begin;
      const int64_t skipped = first % kDropoutLanes;
      const int64_t end = std::min(width, begin + kLanesAtOnce - skipped);
      random_lanes(seed_, stream_, static_cast<uint64_t>(first / kDropoutLanes), lanes.data());
      body(begin, end, lanes.data() + skipped, threshold_);
      begin = end;
    }
  }

 private:
  uint64_t seed_ = 0;
  uint64_t stream_ = 0;
  uint32_t threshold_;
  double scale_;
};

template <typename T>
void add_row(const T* y, const T* residual, T* sum, int64_t width) {
  using A = acc_t<T>;
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    sum[i] = T(static_cast<A>(residual[i]) + static_cast<A>(y[i]));
  }
}

template <typename T>
void add_dropped_row(const T* y, const T* residual, T* sum, int64_t at, int64_t width,
                     const Mask& mask) {
  using A = acc_t<T>;
  const A scale = static_cast<A>(mask.scale());
  mask.for_row(at, width,
               [=](int64_t begin, int64_t end, const uint16_t* lane, uint32_t threshold) {
#pragma omp simd
                 for (int64_t i = begin; i < end; ++i) {
                   const A kept = static_cast<A>(y[i]) * scale;
                   const A dropped = lane[i - begin] >= threshold ? kept : A(0);
                   sum[i] = T(static_cast<A>(residual[i]) + dropped);
                 }
               });
}

// The gradients of one row's elements. Pointers to the row; what is absent is null.
template <typename T>
struct RowGradient {
  const T* dnormed;
  const T* dsum;
  const T* x;
  const T* gamma;
  T* total;
  T* dy;
};

template <typename T, bool kJoins, typename A = acc_t<T>>
inline A total_at(const RowGradient<T>& row, const LayerNormSlope<A>& slope, int64_t i) {
  const A through = slope.dx(static_cast<A>(row.dnormed[i]), static_cast<A>(row.x[i]),
                             static_cast<A>(row.gamma[i]));
  return kJoins ? through + static_cast<A>(row.dsum[i]) : through;
}

template <typename T, bool kJoins>
void total_row(const RowGradient<T>& row, const LayerNormSlope<acc_t<T>>& slope, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    row.total[i] = T(total_at<T, kJoins>(row, slope, i));
  }
}

template <typename T, bool kJoins, bool kTotal>
void dropped_row(const RowGradient<T>& row, const LayerNormSlope<acc_t<T>>& slope, int64_t at,
                 int64_t width, const Mask& mask) {
  using A = acc_t<T>;
  const A scale = static_cast<A>(mask.scale());
  mask.for_row(at, width,
               [=](int64_t begin, int64_t end, const uint16_t* lane, uint32_t threshold) {
#pragma omp simd
                 for (int64_t i = begin; i < end; ++i) {
                   const A total = total_at<T, kJoins>(row, slope, i);
                   if constexpr (kTotal) {
                     row.total[i] = T(total);
                   }
                   row.dy[i] = T(lane[i - begin] >= threshold ? total * scale : A(0));
                 }
               });
}

template <typename T, bool kJoins>
void gradient_row(const RowGradient<T>& row, const LayerNormSlope<acc_t<T>>& slope, int64_t at,
                  int64_t width, const Mask& mask) {
  if (row.dy == nullptr) {
    total_row<T, kJoins>(row, slope, width);
  } else if (row.total == nullptr) {
    dropped_row<T, kJoins, false>(row, slope, at, width, mask);
  } else {
    dropped_row<T, kJoins, true>(row, slope, at, width, mask);
  }
}

template <typename T>
void add_row_to(const T* row, acc_t<T>* sums, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    sums[i] += static_cast<acc_t<T>>(row[i]);
  }
}

template <typename T>
void gradient(const KernelArgs& args) {
  using A = acc_t<T>;
  const auto attrs = args.attr<ResidualNormGradAttrs>();
  const int64_t width = args.in[0].shape.back();
  const int64_t rows = args.in[0].shape.product(0, args.in[0].shape.rank() - 1);
  const Mask mask(attrs.dropout, args, 6);
  const T* dnormed = args.in[0].as<T>();
  const T* dsum = args.in.size() > 5 ? args.in[5].as<T>() : nullptr;
  const T* x = args.in[1].as<T>();
  const A* mean = args.in[2].as<A>();
  const A* rstd = args.in[3].as<A>();
  const T* gamma = args.in[4].as<T>();
  size_t output = 0;
  const auto take = [&](bool wanted) { return wanted ? args.out[output++].as<T>() : nullptr; };
  T* total = take(attrs.sum);
  T* dy = take(attrs.y);
  T* dgamma = take(attrs.gamma);
  T* dbeta = take(attrs.beta);
  T* dbias = take(attrs.bias);

  const auto one_row = [&](int64_t r) {
    const int64_t at = r * width;
    const auto slope = layer_norm_slope(dnormed + at, x + at, gamma, width, mean[r], rstd[r]);
    const RowGradient<T> row = {.dnormed = dnormed + at,
                                .dsum = dsum == nullptr ? nullptr : dsum + at,
                                .x = x + at,
                                .gamma = gamma,
                                .total = total == nullptr ? nullptr : total + at,
                                .dy = dy == nullptr ? nullptr : dy + at};
    if (dsum == nullptr) {
      gradient_row<T, false>(row, slope, at, width, mask);
    } else {
      gradient_row<T, true>(row, slope, at, width, mask);
    }
  };
  // The parameters' sums come first wherever a row is read, for its gradient may be written over
  // it; the bias's comes behind. Few rows make few ranges of sums, which would keep most threads
  // from the rest.
  const bool parameters = attrs.gamma || attrs.beta;
  const bool one_pass = (parameters || attrs.bias) && row_chunks(rows) >= omp_get_max_threads();
  std::array<T*, 3> sums{};
  int count = 0;
  for (T* to : {dgamma, dbeta, one_pass ? dbias : nullptr}) {
    if (to != nullptr) {
      sums[static_cast<size_t>(count++)] = to;
    }
  }
  if (count > 0) {
    const auto add = [&](int64_t begin, int64_t end, A* partial) {
      A* gamma_sums = attrs.gamma ? partial : nullptr;
      A* beta_sums = attrs.beta ? partial + (attrs.gamma ? width : 0) : nullptr;
      for (int64_t r = begin; r < end; ++r) {
        add_layer_norm_parameters(dnormed + r * width, x + r * width, width, mean[r], rstd[r],
                                  gamma_sums, beta_sums);
        if (one_pass) {
          one_row(r);
          if (dbias != nullptr) {
            add_row_to((dy == nullptr ? total : dy) + r * width, partial + (count - 1) * width,
                       width);
          }
        }
      }
    };
    const auto store = [&](int64_t i, A sum) {
      sums[static_cast<size_t>(i / width)][i % width] = T(sum);
    };
    column_sum(rows, count * width, 4 * width, static_cast<A*>(args.workspace), add, store);
  }
  if (!one_pass) {
    parallel_for(rows, width * 3, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        one_row(r);
      }
    });
    if (dbias != nullptr) {
      sum_rows(args, args.out[static_cast<size_t>(residual_norm_dy_output(attrs))],
               args.out.back());
    }
  }
}

}  // namespace

void residual_norm_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<ResidualNormAttrs>();
  const int64_t width = args.in[0].shape.back();
  const int64_t rows = args.in[0].shape.product(0, args.in[0].shape.rank() - 1);
  const Mask mask(attrs.dropout, args, 4);
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* y = args.in[0].as<T>();
    const T* residual = args.in[1].as<T>();
    const T* gamma = args.in[2].as<T>();
    const T* beta = args.in[3].as<T>();
    T* normed = args.out[0].as<T>();
    T* sum = args.out[1].as<T>();
    A* mean = args.out[2].as<A>();
    A* rstd = args.out[3].as<A>();
    const A eps = static_cast<A>(attrs.eps);
    parallel_for(rows, width * 3, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t at = r * width;
        if (attrs.dropout.p > 0) {
          add_dropped_row(y + at, residual + at, sum + at, at, width, mask);
        } else {
          add_row(y + at, residual + at, sum + at, width);
        }
        layer_norm_row(sum + at, gamma, beta, normed + at, width, eps, mean + r, rstd + r);
      }
    });
  });
}

void residual_norm_grad_cpu(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() { gradient<T>(args); });
}

}  // namespace lithe
