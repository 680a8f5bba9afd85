// Transposes small matrices in vector registers: element by element it would cost more than the
// product that needs it.
#pragma once

#include <algorithm>
#include <utility>

#include "tensor/core/convert.h"
#include "tensor/ops/tile_gemm.h"

namespace lithe::tile {

// The first min(n, lanes) elements of a row, zeros behind.
template <typename A, typename T>
inline Vector<A> load_row(const T* from, int64_t n) {
  if constexpr (std::is_same_v<A, T>) {
    if (n >= kLanes<A>) {
      return *reinterpret_cast<const Vector<A>*>(from);
    }
  }
  alignas(kVectorBytes) A row[kLanes<A>] = {};
  for (int64_t i = 0; i < std::min(n, kLanes<A>); ++i) {
    row[i] = convert<A>(from[i]);
  }
  return *reinterpret_cast<const Vector<A>*>(row);
}

// Swaps the off-diagonal blocks of kStep lanes between two rows that lie kStep apart.
template <int kStep, typename A, int... kLane>
inline void exchange(Vector<A>& a, Vector<A>& b, std::integer_sequence<int, kLane...>) {
  constexpr int kCount = static_cast<int>(kLanes<A>);
  const Vector<A> low =
      __builtin_shufflevector(a, b, ((kLane & kStep) ? kCount + kLane - kStep : kLane)...);
  const Vector<A> high =
      __builtin_shufflevector(a, b, ((kLane & kStep) ? kCount + kLane : kLane + kStep)...);
  a = low;
  b = high;
}

template <int kStep, typename A>
inline void exchange_all(Vector<A> (&rows)[kLanes<A>]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<A>; ++i) {
    if ((i & kStep) == 0) {
      exchange<kStep, A>(rows[i], rows[i + kStep],
                         std::make_integer_sequence<int, static_cast<int>(kLanes<A>)>{});
    }
  }
  if constexpr (2 * kStep < kLanes<A>) {
    exchange_all<2 * kStep, A>(rows);
  }
}

// to [width, ld] = the transpose of `rows` rows of `width` elements, `stride` apart; columns up to
// the next multiple of the lanes, which ld must hold, are filled with zeros.
template <typename T, typename A>
void transpose(const T* from, int64_t stride, int64_t rows, int64_t width, A* to, int64_t ld) {
  for (int64_t r = 0; r < rows; r += kLanes<A>) {
    for (int64_t c = 0; c < width; c += kLanes<A>) {
      Vector<A> square[kLanes<A>];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes<A>; ++i) {
        square[i] =
            r + i < rows ? load_row<A>(from + (r + i) * stride + c, width - c) : Vector<A>{};
      }
      exchange_all<1, A>(square);
      const int64_t count = std::min(kLanes<A>, width - c);
      for (int64_t i = 0; i < count; ++i) {
        *reinterpret_cast<Vector<A>*>(to + (c + i) * ld + r) = square[i];
      }
    }
  }
}

}  // namespace lithe::tile
