// Products of small matrices that lie in the cache: no packing, no call overhead, the same order of
// sums on every run. For the tiles of fused kernels, where a BLAS call costs more than the product.
#pragma once

#include <cstdint>

namespace lithe::tile {

// A vector register of this machine, unaligned.
#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kPanel = 4;  // registers a row: 6 * 4 sums fit into the register file
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kPanel = 2;
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kPanel = 2;
#endif
inline constexpr int kRows = 6;

template <typename A>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type __attribute__((vector_size(kVectorBytes), aligned(4), may_alias)) = float;
  using mask __attribute__((vector_size(kVectorBytes))) = int32_t;
};
template <>
struct VectorOf<double> {
  using type __attribute__((vector_size(kVectorBytes), aligned(8), may_alias)) = double;
  using mask __attribute__((vector_size(kVectorBytes))) = int64_t;
};
template <typename A>
using Vector = typename VectorOf<A>::type;
template <typename A>
inline constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(A));

template <typename A>
inline int64_t padded(int64_t n) {
  return (n + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
}

// A matrix operand read element by element: element (i, j) lies at data[i * row + j * column].
template <typename A>
struct Strided {
  const A* data;
  int64_t row;
  int64_t column;
};

template <typename A, int kR, int kV, bool kAdd>
inline void block(const A* a, int64_t row, int64_t column, const A* b, int64_t ldb, A* c,
                  int64_t ldc, int64_t k) {
  using V = Vector<A>;
  V sum[kR][kV];
#pragma GCC unroll 6
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) {
      sum[r][v] = kAdd ? *reinterpret_cast<const V*>(c + r * ldc + v * kLanes<A>) : V{};
    }
  }
  for (int64_t i = 0; i < k; ++i) {
    V rhs[kV];
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) {
      rhs[v] = *reinterpret_cast<const V*>(b + i * ldb + v * kLanes<A>);
    }
#pragma GCC unroll 6
    for (int r = 0; r < kR; ++r) {
      const A lhs = a[r * row + i * column];
#pragma GCC unroll 4
      for (int v = 0; v < kV; ++v) {
        sum[r][v] += lhs * rhs[v];
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) {
      *reinterpret_cast<V*>(c + r * ldc + v * kLanes<A>) = sum[r][v];
    }
  }
}

template <typename A, int kV, bool kAdd>
inline void panel(int64_t m, int64_t k, const Strided<A>& a, const A* b, int64_t ldb, A* c,
                  int64_t ldc) {
  int64_t i = 0;
  for (; i + kRows <= m; i += kRows) {
    block<A, kRows, kV, kAdd>(a.data + i * a.row, a.row, a.column, b, ldb, c + i * ldc, ldc, k);
  }
  const A* rest = a.data + i * a.row;
  A* to = c + i * ldc;
  switch (m - i) {
    case 5:
      block<A, 5, kV, kAdd>(rest, a.row, a.column, b, ldb, to, ldc, k);
      break;
    case 4:
      block<A, 4, kV, kAdd>(rest, a.row, a.column, b, ldb, to, ldc, k);
      break;
    case 3:
      block<A, 3, kV, kAdd>(rest, a.row, a.column, b, ldb, to, ldc, k);
      break;
    case 2:
      block<A, 2, kV, kAdd>(rest, a.row, a.column, b, ldb, to, ldc, k);
      break;
    case 1:
      block<A, 1, kV, kAdd>(rest, a.row, a.column, b, ldb, to, ldc, k);
      break;
    default:
      break;
  }
}

// C [m, n] = A [m, k] B [k, n] (+ C with kAdd); n a multiple of kLanes<A>.
template <bool kAdd, typename A>
void gemm(int64_t m, int64_t n, int64_t k, const Strided<A>& a, const A* b, int64_t ldb, A* c,
          int64_t ldc) {
  int64_t j = 0;
  for (; j + kPanel * kLanes<A> <= n; j += kPanel * kLanes<A>) {
    panel<A, kPanel, kAdd>(m, k, a, b + j, ldb, c + j, ldc);
  }
  if constexpr (kPanel > 2) {
    for (; j + 2 * kLanes<A> <= n; j += 2 * kLanes<A>) {
      panel<A, 2, kAdd>(m, k, a, b + j, ldb, c + j, ldc);
    }
  }
  for (; j < n; j += kLanes<A>) {
    panel<A, 1, kAdd>(m, k, a, b + j, ldb, c + j, ldc);
  }
}

}  // namespace lithe::tile
