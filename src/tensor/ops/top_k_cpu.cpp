#include <algorithm>

#include "tensor/core/tensor.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/top_k.h"
#include "tensor/ops/top_k_order.h"

namespace lithe {
namespace {

// The largest key that at least k elements reach, bit by bit from the highest; needs no memory and
// every pass is one vector loop over a row in the cache.
template <bool kMagnitude, typename T>
order_key_t<acc_t<T>> kth_key(const T* x, int64_t size, int64_t k) {
  using A = acc_t<T>;
  using K = order_key_t<A>;
  K found = 0;
  for (int bit = static_cast<int>(sizeof(K)) * 8 - 1; bit >= 0; --bit) {
    const K candidate = found | (K(1) << bit);
    K count = 0;  // as wide as the keys, so that it is counted in their lanes
#pragma omp simd reduction(+ : count)
    for (int64_t i = 0; i < size; ++i) {
      count += order_key<kMagnitude>(static_cast<A>(x[i])) >= candidate ? K(1) : K(0);
    }
    if (count >= static_cast<K>(k)) {
      found = candidate;
    }
  }
  return found;
}

template <bool kMagnitude, typename T>
void top_k_row(const T* x, int64_t size, int64_t k, T* values, int32_t* indices) {
  using A = acc_t<T>;
  using K = order_key_t<A>;
  const auto key_of = [=](int32_t i) { return order_key<kMagnitude>(static_cast<A>(x[i])); };
  const K least = kth_key<kMagnitude>(x, size, k);
  // All above the k-th key, and of those equal to it as many as are missing, the first ones.
  int64_t above = 0;
  for (int32_t i = 0; i < size; ++i) {
    above += key_of(i) > least;
  }
  int64_t equal = k - above;
  int64_t count = 0;
  for (int32_t i = 0; i < size && count < k; ++i) {
    const K key = key_of(i);
    if (key > least || (key == least && equal-- > 0)) {
      indices[count++] = i;
    }
  }
  std::sort(indices, indices + k, [&](int32_t a, int32_t b) {
    const K ka = key_of(a);
    const K kb = key_of(b);
    return ka != kb ? ka > kb : a < b;
  });
  for (int64_t j = 0; j < k; ++j) {
    values[j] = x[indices[j]];
  }
}

}  // namespace

void top_k_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<TopKAttrs>();
  if (args.out[0].numel() == 0) {
    return;
  }
  const int64_t size = args.in[0].shape.back();
  const int64_t rows = args.in[0].numel() / size;
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    const T* x = args.in[0].as<T>();
    T* values = args.out[0].as<T>();
    int32_t* indices = args.out[1].as<int32_t>();
    parallel_for(rows, 8 * size, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = x + r * size;
        if (attrs.by_magnitude) {
          top_k_row<true>(row, size, attrs.k, values + r * attrs.k, indices + r * attrs.k);
        } else {
          top_k_row<false>(row, size, attrs.k, values + r * attrs.k, indices + r * attrs.k);
        }
      }
    });
  });
}

void top_k_grad_cpu(const KernelArgs& args) {
  const int64_t k = args.in[0].shape.back();
  const int64_t size = args.out[0].shape.back();
  const int64_t rows = size == 0 ? 0 : args.out[0].numel() / size;
  const int32_t* indices = args.in[1].as<int32_t>();
  dispatch_floating(args.out[0].dtype, args.op, [&]<typename T>() {
    const T* dvalues = args.in[0].as<T>();
    T* dx = args.out[0].as<T>();
    parallel_for(rows, size, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        std::fill_n(dx + r * size, size, T(acc_t<T>(0)));
        for (int64_t j = r * k; j < (r + 1) * k; ++j) {
          dx[r * size + indices[j]] = dvalues[j];
        }
      }
    });
  });
}

}  // namespace lithe
