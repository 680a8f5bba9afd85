// The scale of a group, with the same bits on host and device.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "tensor/core/convert.h"

namespace lithe {

// `largest` / `highest` as its type stores it. On the device by its own conversions, which have the
// same bits for all but NaN, which no largest magnitude is, and no branches.
LITHE_HOST_DEVICE inline float stored_scale(float largest, float highest, DType type) {
  const float scale = largest / highest;
#ifdef __CUDA_ARCH__
  const float brain = __bfloat162float(__float2bfloat16_rn(scale));
  const float half = __half2float(__float2half_rn(scale));
  const float other = type == DType::bf16 ? brain : scale;
  return type == DType::f16 ? half : other;
#else
  if (type == DType::bf16) {
    return static_cast<float>(bf16(scale));
  }
  if (type == DType::f16) {
    return static_cast<float>(f16(scale));
  }
  return scale;
#endif
}

// What x is multiplied with; 0 where the scale has no finite inverse.
LITHE_HOST_DEVICE inline float inverse_scale(float scale) {
  constexpr float kLeastNormal = 1.17549435e-38f;
  return scale >= kLeastNormal ? 1.0f / scale : 0.0f;
}

// Element i of scales of that type; exact, as `value` was rounded to it.
LITHE_HOST_DEVICE inline void put_scale(void* scales, DType type, int64_t i, float value) {
#ifdef __CUDA_ARCH__
  if (type == DType::f32) {
    static_cast<float*>(scales)[i] = value;
  } else {
    const auto half = static_cast<uint32_t>(__half_as_ushort(__float2half_rn(value)));
    static_cast<uint16_t*>(scales)[i] =
        static_cast<uint16_t>(type == DType::f16 ? half : __float_as_uint(value) >> 16);
  }
#else
  if (type == DType::bf16) {
    static_cast<bf16*>(scales)[i] = bf16(value);
  } else if (type == DType::f16) {
    static_cast<f16*>(scales)[i] = f16(value);
  } else {
    static_cast<float*>(scales)[i] = value;
  }
#endif
}
LITHE_HOST_DEVICE inline float get_scale(const void* scales, DType type, int64_t i) {
  if (type == DType::bf16) {
    return static_cast<float>(static_cast<const bf16*>(scales)[i]);
  }
  if (type == DType::f16) {
    return static_cast<float>(static_cast<const f16*>(scales)[i]);
  }
  return static_cast<const float*>(scales)[i];
}

}  // namespace lithe
