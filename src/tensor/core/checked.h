// Checked 64-bit arithmetic: sizes come from files and recipes, so an overflow is an error, never a
// wrap.
#pragma once

#include <cstdint>

#include "tensor/core/error.h"

namespace lithe {

inline int64_t checked_mul(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_mul_overflow(a, b, &out)) {
    throw ShapeError("size", "{} x {} overflows 64 bits; use smaller dimensions", a, b);
  }
  return out;
}

inline int64_t checked_add(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_add_overflow(a, b, &out)) {
    throw ShapeError("size", "{} + {} overflows 64 bits; use smaller dimensions", a, b);
  }
  return out;
}

// Smallest multiple of `unit` (a power of two) that is >= n.
inline int64_t round_up(int64_t n, int64_t unit) { return checked_add(n, unit - 1) & ~(unit - 1); }

}  // namespace lithe
