// Wide memory accesses and element conversion in CUDA kernels. Device-only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <type_traits>

#include "tensor/core/convert.h"
#include "tensor/core/cuda_check.h"
#include "tensor/core/dtype.h"
#include "tensor/graph/op.h"

namespace lithe::device {

// Neighbouring elements that move by one access of at most 16 bytes; addresses are multiples of it.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T at[kCount];
};

// How many elements of T make up 16 bytes.
template <typename T>
inline constexpr int kWide = static_cast<int>(16 / sizeof(T));

template <int kCount, typename T>
__device__ inline Pack<T, kCount> load(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}
// Constructed, not assigned: bf16 and f16 have an assignment of their own, with which the elements
// would be stored one by one.
template <int kCount, typename T>
__device__ inline void store(T* to, const Pack<T, kCount>& pack) {
  ::new (static_cast<void*>(to)) Pack<T, kCount>(pack);
}

// Conversion by the hardware's own instructions; rounds to nearest even as the storage types do.
template <typename A, typename T>
__device__ inline A widen(T value) {
  if constexpr (std::is_same_v<T, f16>) {
    return static_cast<A>(__half2float(__ushort_as_half(value.bits)));
  } else {
    return static_cast<A>(value);
  }
}
template <typename T, typename A>
__device__ inline T narrow(A value) {
  if constexpr (std::is_same_v<T, bf16>) {
    T out;
    out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value)));
    return out;
  } else if constexpr (std::is_same_v<T, f16>) {
    T out;
    out.bits = __half_as_ushort(__float2half_rn(static_cast<float>(value)));
    return out;
  } else {
    return static_cast<T>(value);
  }
}

// 16 bytes of T as numbers and back. By whole words, because bf16 and f16 are assigned one by one:
// a pack of them is taken apart as soon as it arrives, and the load behind it waits.
template <typename T>
__device__ inline void unpack(const uint4& words, acc_t<T> (&v)[kWide<T>]) {
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
  if constexpr (std::is_same_v<T, double>) {
    v[0] = __hiloint2double(static_cast<int>(word[1]), static_cast<int>(word[0]));
    v[1] = __hiloint2double(static_cast<int>(word[3]), static_cast<int>(word[2]));
  } else {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (std::is_same_v<T, float>) {
        v[w] = __uint_as_float(word[w]);
      } else if constexpr (std::is_same_v<T, bf16>) {
        v[2 * w] = __uint_as_float(word[w] << 16);
        v[2 * w + 1] = __uint_as_float(word[w] & 0xffff0000u);
      } else {
        const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&word[w]));
        v[2 * w] = pair.x;
        v[2 * w + 1] = pair.y;
      }
    }
  }
}
template <typename T>
__device__ inline uint4 pack(const acc_t<T> (&v)[kWide<T>]) {
  if constexpr (std::is_same_v<T, double>) {
    return make_uint4(
        static_cast<uint32_t>(__double2loint(v[0])), static_cast<uint32_t>(__double2hiint(v[0])),
        static_cast<uint32_t>(__double2loint(v[1])), static_cast<uint32_t>(__double2hiint(v[1])));
  } else {
    uint32_t word[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (std::is_same_v<T, float>) {
        word[w] = __float_as_uint(v[w]);
      } else if constexpr (std::is_same_v<T, bf16>) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * w], v[2 * w + 1]);
        word[w] = *reinterpret_cast<const uint32_t*>(&pair);
      } else {
        const __half2 pair = __floats2half2_rn(v[2 * w], v[2 * w + 1]);
        word[w] = *reinterpret_cast<const uint32_t*>(&pair);
      }
    }
    return make_uint4(word[0], word[1], word[2], word[3]);
  }
}

template <typename T>
__device__ inline uint4 load_words(const T* from) {
  return *reinterpret_cast<const uint4*>(from);
}
// In assembly, as the compiler makes single words of some such stores.
template <typename T>
__device__ inline void store_words(T* to, const uint4& words) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.x), "r"(words.y),
               "r"(words.z), "r"(words.w)
               : "memory");
}

// Eight elements as they lie in memory, and as numbers for codes.
template <typename T>
struct Eight {
  uint4 part[sizeof(T) / 2];
};
template <typename T>
__device__ inline Eight<T> load_eight(const T* from) {
  Eight<T> out;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) {
    out.part[i] = load_words(from + i * kWide<T>);
  }
  return out;
}
template <typename T>
__device__ inline void store_eight(T* to, const Eight<T>& eight) {
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) {
    store_words(to + i * kWide<T>, eight.part[i]);
  }
}
template <typename A, typename T>
__device__ inline void unpack_eight(const Eight<T>& eight, A (&v)[8]) {
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) {
    acc_t<T> part[kWide<T>];
    unpack<T>(eight.part[i], part);
#pragma unroll
    for (int j = 0; j < kWide<T>; ++j) {
      v[i * kWide<T> + j] = static_cast<A>(part[j]);
    }
  }
}
template <typename T, typename A>
__device__ inline Eight<T> pack_eight(const A (&v)[8]) {
  Eight<T> out;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) {
    acc_t<T> part[kWide<T>];
#pragma unroll
    for (int j = 0; j < kWide<T>; ++j) {
      part[j] = static_cast<acc_t<T>>(v[i * kWide<T> + j]);
    }
    out.part[i] = pack<T>(part);
  }
  return out;
}

inline cudaStream_t stream_of(const KernelArgs& args) {
  return static_cast<cudaStream_t>(args.stream);
}

// A plan made for another device lacks the scratch that a kernel counts on.
inline void expect_workspace(const KernelArgs& args, int64_t bytes) {
  if (args.workspace_bytes < bytes) {
    throw DeviceError(args.op, "{} bytes of workspace were planned, {} are needed; plan for cuda",
                      args.workspace_bytes, bytes);
  }
}

// Blocks for `items` at `per_block` each.
inline unsigned blocks_for(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  if (blocks > INT32_MAX) {
    throw ShapeError("device", "{} items need {} blocks, {} are possible; use a smaller batch",
                     items, blocks, INT32_MAX);
  }
  return static_cast<unsigned>(blocks);
}

}  // namespace lithe::device
