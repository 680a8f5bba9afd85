#include <algorithm>
#include <limits>
#include <type_traits>

#include "tensor/core/tensor.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/softmax.h"
#include "tensor/ops/vector_math.h"

namespace lithe {
namespace {

// The score of position s, minus infinity where it is hidden.
template <bool kMasked, typename A, typename T>
inline A score(const T* x, const bool* visible, A scale, int64_t s) {
  const A value = static_cast<A>(x[s]) * scale;
  if constexpr (kMasked) {
    return visible[s] ? value : -std::numeric_limits<A>::infinity();
  } else {
    return value;
  }
}

// One row of which the first `n` positions may be visible, of `size`.
template <bool kMasked, typename T>
void softmax_row(const T* x, const bool* visible, acc_t<T> scale, int64_t n, int64_t size, T* y) {
  using A = acc_t<T>;
  A largest = -std::numeric_limits<A>::infinity();
#pragma omp simd reduction(max : largest)
  for (int64_t s = 0; s < n; ++s) {
    const A v = score<kMasked>(x, visible, scale, s);
    largest = v > largest ? v : largest;
  }
  if (kMasked && std::find(visible, visible + n, true) == visible + n) {
    n = 0;
  }
  A sum = 0;
  if constexpr (std::is_same_v<T, A>) {
#pragma omp simd reduction(+ : sum)
    for (int64_t s = 0; s < n; ++s) {
      const A e = vec::exp(score<kMasked>(x, visible, scale, s) - largest);
      y[s] = e;
      sum += e;
    }
    const A inverse = A(1) / sum;
#pragma omp simd
    for (int64_t s = 0; s < n; ++s) {
      y[s] *= inverse;
    }
  } else {
    // The exponential is computed twice rather than rounded twice.
#pragma omp simd reduction(+ : sum)
    for (int64_t s = 0; s < n; ++s) {
      sum += vec::exp(score<kMasked>(x, visible, scale, s) - largest);
    }
    const A inverse = A(1) / sum;
#pragma omp simd
    for (int64_t s = 0; s < n; ++s) {
      y[s] = T(vec::exp(score<kMasked>(x, visible, scale, s) - largest) * inverse);
    }
  }
  std::fill(y + n, y + size, T(A(0)));
}

}  // namespace

void softmax_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<SoftmaxAttrs>();
  const Shape& shape = args.in[0].shape;
  const int64_t size = shape.back();
  if (args.out[0].numel() == 0) {
    return;
  }
  const int64_t rows = shape.product(0, shape.rank() - 1);
  const int64_t rows_of_batch = rows / shape[0];
  const int64_t queries = attrs.causal ? shape.back(1) : 1;
  const bool* mask = args.in.size() > 1 ? args.in[1].as<bool>() : nullptr;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    const auto scale = static_cast<acc_t<T>>(attrs.scale);
    parallel_for(rows, 8 * size, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        int64_t n = size;
        if (attrs.causal) {
          n = std::clamp<int64_t>(r % queries + size - queries + 1, 0, size);
        }
        if (mask != nullptr) {
          const bool* visible = mask + r / rows_of_batch * size;
          softmax_row<true>(x + r * size, visible, scale, n, size, y + r * size);
        } else {
          softmax_row<false>(x + r * size, nullptr, scale, n, size, y + r * size);
        }
      }
    });
  });
}

void softmax_grad_cpu(const KernelArgs& args) {
  const double factor = args.attr<SoftmaxAttrs>().scale;
  if (args.out[0].numel() == 0) {
    return;
  }
  const int64_t size = args.out[0].shape.back();
  const int64_t rows = args.out[0].numel() / size;
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const T* dp = args.in[0].as<T>();
    const T* p = args.in[1].as<T>();
    T* dx = args.out[0].as<T>();
    const A scale = static_cast<A>(factor);
    parallel_for(rows, 2 * size, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* dp_row = dp + r * size;
        const T* p_row = p + r * size;
        T* dx_row = dx + r * size;
        A sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t s = 0; s < size; ++s) {
          sum += static_cast<A>(dp_row[s]) * static_cast<A>(p_row[s]);
        }
#pragma omp simd
        for (int64_t s = 0; s < size; ++s) {
          dx_row[s] = T(scale * static_cast<A>(p_row[s]) * (static_cast<A>(dp_row[s]) - sum));
        }
      }
    });
  });
}

}  // namespace lithe
