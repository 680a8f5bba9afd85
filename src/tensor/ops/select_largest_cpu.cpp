#include <algorithm>
#include <array>

#include "tensor/core/tensor.h"
#include "tensor/ops/parallel.h"
#include "tensor/ops/select_largest.h"
#include "tensor/ops/top_k_order.h"

namespace lithe {
namespace {

using Counts = std::array<uint32_t, 1 << kSelectDigitBits>;

template <typename K>
struct Kth {
  K key;          // the largest that at least k elements reach
  int64_t equal;  // how many of those with just this key belong to the k
};

// Digit by digit from the highest. Counts are whole numbers, so threads may add theirs in any
// order.
template <typename K, typename KeyOf>
Kth<K> find_kth(int64_t n, int64_t k, KeyOf key_of) {
  Kth<K> out{0, k};
  K known = 0;  // the bits that out.key has
  int width = 0;
  for (int shift = static_cast<int>(sizeof(K)) * 8; shift > 0;) {
    width = std::min(kSelectDigitBits, shift);
    shift -= width;
    const K digits = (K(1) << width) - 1;
    Counts counts{};
    parallel_for(n, 4, [&](int64_t begin, int64_t end) {
      Counts own{};
      for (int64_t i = begin; i < end; ++i) {
        const K key = key_of(i);
        if ((key & known) == out.key) {
          ++own[static_cast<size_t>((key >> shift) & digits)];
        }
      }
#pragma omp critical(lithe_select_largest)
      for (size_t d = 0; d < counts.size(); ++d) {
        counts[d] += own[d];
      }
    });
    auto digit = static_cast<size_t>(digits);
    while (counts[digit] < out.equal) {
      out.equal -= counts[digit--];
    }
    out.key |= static_cast<K>(digit) << shift;
    known |= digits << shift;
  }
  return out;
}

}  // namespace

void select_largest_cpu(const KernelArgs& args) {
  const int64_t k = args.attr<SelectLargestAttrs>().k;
  if (k == 0) {
    return;
  }
  const int64_t n = args.in[0].numel();
  int32_t* indices = args.out[1].as<int32_t>();
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    using K = order_key_t<A>;
    const T* x = args.in[0].as<T>();
    T* values = args.out[0].as<T>();
    const auto key_of = [=](int64_t i) { return order_key<true>(static_cast<A>(x[i])); };
    const Kth<K> kth = find_kth<K>(n, k, key_of);
    int64_t equal = kth.equal;
    int64_t count = 0;
    for (int64_t i = 0; i < n && count < k; ++i) {
      const K key = key_of(i);
      if (key > kth.key || (key == kth.key && equal-- > 0)) {
        indices[count] = static_cast<int32_t>(i);
        values[count++] = x[i];
      }
    }
  });
}

}  // namespace lithe
