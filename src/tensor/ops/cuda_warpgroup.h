// Tensor-core products of a warpgroup, four neighbouring warps, on Hopper (PTX ISA: wgmma): [64,
// 16] by [16, columns], the right operand from shared memory, the left one from there or from
// registers. They run on while the warps do other work. Device-only.
#pragma once

#include "tensor/ops/cuda_mma.h"

namespace lithe::device {

// A tile: rows of 64 16-bit elements, on a 1024-byte boundary. The 16-byte chunk c of row r stands
// at place c ^ (r % 8), where neither rows nor columns of chunks share banks.
inline constexpr int kTileColumns = 64;
inline constexpr int kTileRowBytes = 128;

__device__ inline uint32_t tile_chunk(int row, int chunk) {
  return static_cast<uint32_t>(row * kTileRowBytes + ((chunk ^ (row & 7)) << 4));
}

// A tile at a shared address, for the products; plus kNextColumns or kNextRows for every 16 columns
// or rows into it, whichever the sum runs over.
__device__ inline uint64_t describe_tile(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kEightRows = uint64_t{8 * kTileRowBytes / 16} << 32;
  // Of a cluster's other blocks the address has more bits than the field.
  return (address & 0x3ffffu) >> 4 | uint64_t{1} << 16 | kEightRows | kSwizzle128;
}
inline constexpr uint64_t kNextColumns = 2;
inline constexpr uint64_t kNextRows = 128;

// Registers of operands and sums are ready for the products that follow.
__device__ inline void warpgroup_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// The products so far are a group.
__device__ inline void warpgroup_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// At most kPending groups are unfinished. settle() what is read next.
template <int kPending>
__device__ inline void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from reading sums before the wait.
template <int kEights>
__device__ inline void settle(float (&c)[kEights][4]) {
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
    asm volatile("" : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])::"memory");
  }
}

// What the threads wrote to shared memory (cp.async too) becomes visible to the products after the
// next barrier.
__device__ inline void publish_tiles() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

#define LITHE_SUM(mode, n) mode(c[n][0]), mode(c[n][1]), mode(c[n][2]), mode(c[n][3])
#define LITHE_SUMS_16(mode) LITHE_SUM(mode, 0), LITHE_SUM(mode, 1)
#define LITHE_SUMS_32(mode) \
  LITHE_SUM(mode, 0), LITHE_SUM(mode, 1), LITHE_SUM(mode, 2), LITHE_SUM(mode, 3)
#define LITHE_SUMS_64(mode)                                                       \
  LITHE_SUM(mode, 0), LITHE_SUM(mode, 1), LITHE_SUM(mode, 2), LITHE_SUM(mode, 3), \
      LITHE_SUM(mode, 4), LITHE_SUM(mode, 5), LITHE_SUM(mode, 6), LITHE_SUM(mode, 7)
#define LITHE_NAMES_16 "{%0, %1, %2, %3, %4, %5, %6, %7}, "
#define LITHE_NAMES_32 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
#define LITHE_NAMES_64                                                                     \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, " \
  "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
#define LITHE_SUMS_128(mode)                                                            \
  LITHE_SUM(mode, 0), LITHE_SUM(mode, 1), LITHE_SUM(mode, 2), LITHE_SUM(mode, 3),       \
      LITHE_SUM(mode, 4), LITHE_SUM(mode, 5), LITHE_SUM(mode, 6), LITHE_SUM(mode, 7),   \
      LITHE_SUM(mode, 8), LITHE_SUM(mode, 9), LITHE_SUM(mode, 10), LITHE_SUM(mode, 11), \
      LITHE_SUM(mode, 12), LITHE_SUM(mode, 13), LITHE_SUM(mode, 14), LITHE_SUM(mode, 15)
#define LITHE_NAMES_128                                                              \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
#define LITHE_WGMMA(columns, type, adds, operands, mode, ...)                             \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " adds                                     \
               ", 0; wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type \
               " " LITHE_NAMES_##columns operands "; }"                                   \
               : LITHE_SUMS_##columns(mode)                                               \
               : __VA_ARGS__)
// The four kinds: both types, with and without earlier sums.
#define LITHE_WGMMA_KINDS(columns, operands, ...)                     \
  if constexpr (std::is_same_v<T, bf16>) {                            \
    if constexpr (kAdds) {                                            \
      LITHE_WGMMA(columns, "bf16", "1", operands, "+f", __VA_ARGS__); \
    } else {                                                          \
      LITHE_WGMMA(columns, "bf16", "0", operands, "=f", __VA_ARGS__); \
    }                                                                 \
  } else {                                                            \
    if constexpr (kAdds) {                                            \
      LITHE_WGMMA(columns, "f16", "1", operands, "+f", __VA_ARGS__);  \
    } else {                                                          \
      LITHE_WGMMA(columns, "f16", "0", operands, "=f", __VA_ARGS__);  \
    }                                                                 \
  }

// c [64, 8 kEights] = or += a b, 16 deep: a from registers, laid out as for multiply_halves with 16
// rows a warp, as are the sums. b: kDown: 16 rows of a tile by all its columns; else the transpose
// of 8 kEights rows by 16 columns.
template <typename T, bool kDown, bool kAdds, int kEights>
__device__ inline void multiply_registers(float (&c)[kEights][4], const uint32_t (&a)[4],
                                          uint64_t b) {
  static_assert(kEights == 2 || kEights == 4 || kEights == 8);
  if constexpr (kEights == 8) {
    LITHE_WGMMA_KINDS(64, "{%32, %33, %34, %35}, %36, p, 1, 1, %37", "r"(a[0]), "r"(a[1]),
                      "r"(a[2]), "r"(a[3]), "l"(b), "n"(kDown ? 1 : 0))
  } else if constexpr (kEights == 4) {
    LITHE_WGMMA_KINDS(32, "{%16, %17, %18, %19}, %20, p, 1, 1, %21", "r"(a[0]), "r"(a[1]),
                      "r"(a[2]), "r"(a[3]), "l"(b), "n"(kDown ? 1 : 0))
  } else {
    LITHE_WGMMA_KINDS(16, "{%8, %9, %10, %11}, %12, p, 1, 1, %13", "r"(a[0]), "r"(a[1]), "r"(a[2]),
                      "r"(a[3]), "l"(b), "n"(kDown ? 1 : 0))
  }
}
// The same with a from the 64 rows of a tile, 16 columns of it.
template <typename T, bool kDown, bool kAdds, int kEights>
__device__ inline void multiply_tiles(float (&c)[kEights][4], uint64_t a, uint64_t b) {
  static_assert(kEights == 2 || kEights == 4 || kEights == 8);
  if constexpr (kEights == 8) {
    LITHE_WGMMA_KINDS(64, "%32, %33, p, 1, 1, 0, %34", "l"(a), "l"(b), "n"(kDown ? 1 : 0))
  } else if constexpr (kEights == 4) {
    LITHE_WGMMA_KINDS(32, "%16, %17, p, 1, 1, 0, %18", "l"(a), "l"(b), "n"(kDown ? 1 : 0))
  } else {
    LITHE_WGMMA_KINDS(16, "%8, %9, p, 1, 1, 0, %10", "l"(a), "l"(b), "n"(kDown ? 1 : 0))
  }
}

// c [64, 128] = or += a b, 16 deep, as `adds` says when it runs: both from tiles, see above.
template <typename T, bool kDown>
__device__ inline void multiply_wide(float (&c)[16][4], uint64_t a, uint64_t b, bool adds) {
  if constexpr (std::is_same_v<T, bf16>) {
    LITHE_WGMMA(128, "bf16", "%66", "%64, %65, p, 1, 1, 0, %67", "+f", "l"(a), "l"(b),
                "r"(adds ? 1 : 0), "n"(kDown ? 1 : 0));
  } else {
    LITHE_WGMMA(128, "f16", "%66", "%64, %65, p, 1, 1, 0, %67", "+f", "l"(a), "l"(b),
                "r"(adds ? 1 : 0), "n"(kDown ? 1 : 0));
  }
}

#undef LITHE_WGMMA_KINDS
#undef LITHE_WGMMA
#undef LITHE_NAMES_128
#undef LITHE_NAMES_64
#undef LITHE_NAMES_32
#undef LITHE_NAMES_16
#undef LITHE_SUMS_128
#undef LITHE_SUMS_64
#undef LITHE_SUMS_32
#undef LITHE_SUMS_16
#undef LITHE_SUM

}  // namespace lithe::device
