// One instruction each: kernels that would else wait for arithmetic instead of memory. Device-only.
#pragma once

#include <cuda_runtime.h>

namespace lithe::device {

// 2^x within 2 units of the last place; subnormal results become 0.
__device__ inline float exp2_fast(float x) {
  float y = 0;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float reciprocal_fast(float x) {
  float y = 0;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace lithe::device
