// Operands of products on the CPU as BLAS reads them: 16-bit ones in fp32, in planned workspace.
#pragma once

#include <cstdint>

#include "tensor/core/convert.h"
#include "tensor/core/tensor.h"
#include "tensor/graph/op.h"
#include "tensor/ops/parallel.h"

namespace lithe {

template <typename To, typename From>
void convert_all(const From* from, int64_t n, To* to) {
  parallel_for(n, 1, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      to[i] = convert<To>(from[i]);
    }
  });
}

// Hands out pieces of the planned workspace.
class Scratch {
 public:
  explicit Scratch(void* data) : next_(static_cast<float*>(data)) {}
  float* take(int64_t n) {
    float* out = next_;
    next_ += n;
    return out;
  }

 private:
  float* next_;
};

// Operands as BLAS reads them: as they are, or widened to fp32.
template <typename T>
const acc_t<T>* widened(const TensorRef& x, Scratch& scratch) {
  if constexpr (is_half_v<T>) {
    float* out = scratch.take(x.numel());
    convert_all(x.as<T>(), x.numel(), out);
    return out;
  } else {
    return x.as<T>();
  }
}

}  // namespace lithe
