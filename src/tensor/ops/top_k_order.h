// The order in which top_k ranks elements, on every device.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "tensor/core/dtype.h"

namespace lithe {

template <typename A>
using order_key_t = std::conditional_t<std::is_same_v<A, double>, uint64_t, uint32_t>;

// An unsigned number in the order of the values: the sign bit is set for positive floats, and
// negative ones are turned round. NaN becomes the largest; -0 equals 0.
template <bool kMagnitude, typename A>
LITHE_HOST_DEVICE inline order_key_t<A> order_key(A value) {
  using K = order_key_t<A>;
  constexpr K kSign = K(1) << (sizeof(K) * 8 - 1);
  const A v = (kMagnitude ? std::fabs(value) : value) + A(0);
  const K bits = std::bit_cast<K>(v);
  const K key = (bits & kSign) != 0 ? ~bits : bits | kSign;
  return v != v ? ~K(0) : key;
}

}  // namespace lithe
