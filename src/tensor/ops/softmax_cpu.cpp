#include <algorithm>
#include <limits>
#include <type_traits>

#include "tensor/core/tensor.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/softmax.h"
#include "tensor/ops/vector_math.h"

namespace lithe {
namespace {

// Scores are worked on in pieces of a row, in a buffer that ends in whole vectors: the exponential,
// the costly part, then has no remainder to be computed one by one.
constexpr int64_t kPiece = 1024;
constexpr int64_t kLanes = 16;

// out = scale * x, minus infinity where hidden; returns the largest.
template <bool kMasked, typename T>
acc_t<T> scores(const T* x, const uint8_t* visible, acc_t<T> scale, int64_t n, acc_t<T>* out) {
  using A = acc_t<T>;
  constexpr A kHidden = -std::numeric_limits<A>::infinity();
  A largest = kHidden;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    A v = static_cast<A>(x[i]) * scale;
    if constexpr (kMasked) {
      v = visible[i] != 0 ? v : kHidden;
    }
    out[i] = v;
    largest = v > largest ? v : largest;
  }
  return largest;
}

// x = exp(x - largest); returns the sum.
template <typename A>
A exponentials(A largest, int64_t n, A* x) {
  if constexpr (std::is_same_v<A, float>) {
    const int64_t padded = (n + kLanes - 1) / kLanes * kLanes;
    std::fill(x + n, x + padded, largest);
    for (int64_t i = 0; i < padded; i += kLanes) {
#pragma omp simd
      for (int64_t j = i; j < i + kLanes; ++j) {
        x[j] = vec::exp(x[j] - largest);
      }
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      x[i] = vec::exp(x[i] - largest);
    }
  }
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    sum += x[i];
  }
  return sum;
}

// One row of which the first `n` positions may be visible, of `size`; the rest gets 0. Rows longer
// than a piece compute their exponentials twice instead of rounding them to T in between.
template <bool kMasked, typename T>
void softmax_row(const T* x, const uint8_t* visible, acc_t<T> scale, int64_t n, int64_t size,
                 T* y) {
  using A = acc_t<T>;
  alignas(64) A piece[kPiece];
  const auto load = [&](int64_t begin) {
    return scores<kMasked>(x + begin, kMasked ? visible + begin : nullptr, scale,
                           std::min(kPiece, n - begin), piece);
  };
  if (kMasked && std::find(visible, visible + n, uint8_t{1}) == visible + n) {
    n = 0;
  }
  A largest = -std::numeric_limits<A>::infinity();
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    largest = std::max(largest, load(begin));
  }
  const bool whole = n <= kPiece;
  A sum = 0;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    if (!whole) {
      load(begin);
    }
    sum += exponentials(largest, std::min(kPiece, n - begin), piece);
  }
  const A inverse = A(1) / sum;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    const int64_t count = std::min(kPiece, n - begin);
    if (!whole) {
      load(begin);
      exponentials(largest, count, piece);
    }
    T* to = y + begin;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      to[i] = T(piece[i] * inverse);
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
  const uint8_t* mask = args.in.size() > 1 ? args.in[1].as<uint8_t>() : nullptr;
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
          const uint8_t* visible = mask + r / rows_of_batch * size;
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
