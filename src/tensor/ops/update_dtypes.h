// The pairs of dtypes that an update's tensor and its gradient may have (see the shape rules).
#pragma once

#include <string_view>
#include <type_traits>

#include "tensor/core/convert.h"
#include "tensor/core/tensor.h"

namespace lithe {

// Calls f.operator()<T, G>(): G is T, or float for what was widened to fp32, or 16 bits beside
// fp32.
template <typename F>
void dispatch_update(DType tensor, DType gradient, std::string_view where, F&& f) {
  dispatch_floating(tensor, where, [&]<typename T>() {
    if (gradient == dtype_of<T>::value) {
      f.template operator()<T, T>();
      return;
    }
    if constexpr (is_half_v<T>) {
      if (gradient == DType::f32) {
        f.template operator()<T, float>();
        return;
      }
    }
    if constexpr (std::is_same_v<T, float>) {
      if (gradient == DType::bf16 || gradient == DType::f16) {
        gradient == DType::bf16 ? f.template operator()<float, bf16>()
                                : f.template operator()<float, f16>();
        return;
      }
    }
    throw ShapeError(where, "has no kernel for a {} tensor and a {} gradient; cast the gradient",
                     dtype_name(tensor), dtype_name(gradient));
  });
}

}  // namespace lithe
