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
