// Tensor-core products of one warp, and the loads that feed them (PTX ISA: mma, ldmatrix,
// cp.async). Lane l is of group l / 4 and has place l % 4 in it. Device-only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "tensor/core/dtype.h"
#include "tensor/ops/cuda_fast_math.h"

namespace lithe::device {

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Four matrices of 8 rows of 16 bytes; lane l gives the address of row l % 8 of matrix l / 8. Word
// m becomes, of matrix m, word `place` of row `group`; transposed, with 16-bit elements, the
// elements (2 place, group) and (2 place + 1, group).
__device__ inline void load_matrices(uint32_t (&word)[4], uint32_t shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(shared_row)
               : "memory");
}
__device__ inline void load_matrices(uint32_t (&word)[4], const void* row) {
  load_matrices(word, shared_address(row));
}
__device__ inline void load_matrices_transposed(uint32_t (&word)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(shared_address(row))
               : "memory");
}

// 16 bytes into shared memory, zeros where there is nothing to read.
__device__ inline void copy_async(uint32_t shared_to, const void* from, bool is_real) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_to), "l"(from),
               "r"(is_real ? 16 : 0)
               : "memory");
}
__device__ inline void copy_async(void* to, const void* from, bool is_real) {
  copy_async(shared_address(to), from, is_real);
}
__device__ inline void copy_async(uint32_t shared_to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_to), "l"(from) : "memory");
}
// 4 or 8 bytes, zeros where there is nothing to read.
template <int kBytes>
__device__ inline void copy_few_async(uint32_t shared_to, const void* from, bool is_real) {
  static_assert(kBytes == 4 || kBytes == 8);
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_to), "l"(from),
               "n"(kBytes), "r"(is_real ? kBytes : 0)
               : "memory");
}
// Brings the line of an address nearer.
__device__ inline void prefetch(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}
__device__ inline void copy_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ inline void store_shared(uint32_t address, uint32_t word) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
}
__device__ inline void store_shared(uint32_t address, const uint4& words) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(words.x),
               "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}
__device__ inline uint32_t load_shared_word(uint32_t address) {
  uint32_t word;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
  return word;
}
__device__ inline uint4 load_shared(uint32_t address) {
  uint4 out;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
               : "r"(address)
               : "memory");
  return out;
}

// Two floats rounded to 16 bits, `low` in the lower half.
template <typename T>
__device__ inline uint32_t pack_halves(float low, float high) {
  uint32_t out = 0;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  }
  return out;
}

// fp32 rounded to TF32's 10 bits of mantissa; the products ignore the 13 bits below.
__device__ inline uint32_t round_tf32(float x) { return __float_as_uint(x) + 0x1000u; }

// c [16, 8] += a [16, 16] b [16, 8] of bf16 or f16. With (row, column): c = (group, 2 place),
// (group, 2 place + 1), the same in row group + 8; a as pairs of columns (group, 2 place),
// (group + 8, 2 place), (group, 2 place + 8), (group + 8, 2 place + 8); b as pairs of rows
// (2 place, group), (2 place + 8, group).
template <typename T>
__device__ inline void multiply_halves(float (&c)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, bf16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

// c [16, 8] += a [16, 8] b [8, 8] of TF32. c as above; a = (group, place), (group + 8, place),
// (group, place + 4), (group + 8, place + 4); b = (place, group), (place + 4, group).
__device__ inline void multiply_tf32(float (&c)[4], const uint32_t (&a)[4],
                                     const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace lithe::device
