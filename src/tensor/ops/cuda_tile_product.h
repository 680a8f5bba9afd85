// Operands of tensor-core products from tiles in shared memory, the same interface for 16-bit and
// fp32 elements. Rows of a tile are 16-byte aligned and `ld` elements apart; a distance of an odd
// number of 16-byte chunks makes every access here free of bank conflicts. Device-only.
#pragma once

#include "tensor/ops/cuda_mma.h"

namespace lithe::device {

// Elements between the rows of a tile of `columns`.
template <typename T>
constexpr int padded_row(int columns) {
  return columns + static_cast<int>(16 / sizeof(T));  // of an even number of chunks
}

// Addresses of four matrices: two below each other, then two beside them; or the other way round.
template <typename T>
__device__ inline const T* down_first(const T* tile, int ld) {
  constexpr int kChunk = static_cast<int>(16 / sizeof(T));
  const int lane = static_cast<int>(threadIdx.x % 32);
  return tile + lane % 16 * ld + lane / 16 * kChunk;
}
template <typename T>
__device__ inline const T* across_first(const T* tile, int ld) {
  constexpr int kChunk = static_cast<int>(16 / sizeof(T));
  const int lane = static_cast<int>(threadIdx.x % 32);
  return tile + (lane % 8 + lane / 16 * 8) * ld + lane / 8 % 2 * kChunk;
}

// Products of [16, kDepth] by [kDepth, 8], two of the latter side by side.
template <typename T>
struct HalfProduct {
  using Element = T;
  static constexpr int kDepth = 16;
  struct A {
    uint32_t word[4];
  };
  struct B {
    uint32_t word[2];
  };

  // From a tile [16, kDepth].
  __device__ static A load_a(const T* tile, int ld) {
    A a;
    load_matrices(a.word, down_first(tile, ld));
    return a;
  }
  // From a tile [kDepth, 16].
  __device__ static A load_a_transposed(const T* tile, int ld) {
    A a;
    load_matrices_transposed(a.word, across_first(tile, ld));
    return a;
  }
  // From a tile [16, kDepth]: its rows are the columns of the two operands.
  __device__ static void load_b(B (&b)[2], const T* tile, int ld) {
    uint32_t word[4];
    load_matrices(word, across_first(tile, ld));
    split(b, word);
  }
  // From a tile [kDepth, 16].
  __device__ static void load_b_transposed(B (&b)[2], const T* tile, int ld) {
    uint32_t word[4];
    load_matrices_transposed(word, down_first(tile, ld));
    split(b, word);
  }
  // kDepth columns of earlier sums.
  __device__ static A from_sums(const float (*c)[4]) {
    return {{pack_halves<T>(c[0][0], c[0][1]), pack_halves<T>(c[0][2], c[0][3]),
             pack_halves<T>(c[1][0], c[1][1]), pack_halves<T>(c[1][2], c[1][3])}};
  }
  __device__ static void multiply(float (&c)[4], const A& a, const B& b) {
    multiply_halves<T>(c, a.word, b.word);
  }
  // Two neighbours of a row.
  __device__ static void store_pair(T* to, float first, float second) {
    *reinterpret_cast<uint32_t*>(to) = pack_halves<T>(first, second);
  }

 private:
  __device__ static void split(B (&b)[2], const uint32_t (&word)[4]) {
    b[0] = {{word[0], word[1]}};
    b[1] = {{word[2], word[3]}};
  }
};

// fp32 on TF32 units. kExact: each operand as the sum of two TF32 numbers and three products of
// them, which leaves a relative error of about 2^-21 a product, near that of fp32 itself. In
// transposed operands and in those from sums, the rows of b, and columns of a, stand in the order
// 0 2 4 6 1 3 5 7: so sums need no exchange between lanes.
template <bool kExact>
struct SingleProduct {
  using Element = float;
  static constexpr int kDepth = 8;
  static constexpr int kTerms = kExact ? 2 : 1;
  struct A {
    uint32_t word[kTerms][4];
  };
  struct B {
    uint32_t word[kTerms][2];
  };

  __device__ static A load_a(const float* tile, int ld) {
    uint32_t word[4];
    load_matrices(word, down_first(tile, ld));
    return make_a(__uint_as_float(word[0]), __uint_as_float(word[1]), __uint_as_float(word[2]),
                  __uint_as_float(word[3]));
  }
  __device__ static A load_a_transposed(const float* tile, int ld) {
    const float* at = in_order(tile, ld);
    return make_a(at[0], at[8], at[ld], at[ld + 8]);
  }
  __device__ static void load_b(B (&b)[2], const float* tile, int ld) {
    uint32_t word[4];
    load_matrices(word, across_first(tile, ld));
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      b[i] = make_b(__uint_as_float(word[2 * i]), __uint_as_float(word[2 * i + 1]));
    }
  }
  __device__ static void load_b_transposed(B (&b)[2], const float* tile, int ld) {
    const float* at = in_order(tile, ld);
    b[0] = make_b(at[0], at[ld]);
    b[1] = make_b(at[8], at[ld + 8]);
  }
  __device__ static A from_sums(const float (*c)[4]) {
    return make_a(c[0][0], c[0][2], c[0][1], c[0][3]);
  }
  __device__ static void multiply(float (&c)[4], const A& a, const B& b) {
    if constexpr (kExact) {
      multiply_tf32(c, a.word[1], b.word[0]);
      multiply_tf32(c, a.word[0], b.word[1]);
    }
    multiply_tf32(c, a.word[0], b.word[0]);
  }
  __device__ static void store_pair(float* to, float first, float second) {
    *reinterpret_cast<float2*>(to) = make_float2(first, second);
  }

 private:
  // Rows 2 place and 2 place + 1, column `group`.
  __device__ static const float* in_order(const float* tile, int ld) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    return tile + lane % 4 * 2 * ld + lane / 4;
  }
  template <typename Operand>
  __device__ static void set(Operand& operand, int i, float x) {
    if constexpr (kExact) {
      const uint32_t large = round_tf32(x) & 0xffffe000u;
      operand.word[0][i] = large;
      operand.word[1][i] = round_tf32(x - __uint_as_float(large));
    } else {
      operand.word[0][i] = round_tf32(x);
    }
  }
  __device__ static A make_a(float x0, float x1, float x2, float x3) {
    A a;
    set(a, 0, x0);
    set(a, 1, x1);
    set(a, 2, x2);
    set(a, 3, x3);
    return a;
  }
  __device__ static B make_b(float x0, float x1) {
    B b;
    set(b, 0, x0);
    set(b, 1, x1);
    return b;
  }
};

}  // namespace lithe::device
