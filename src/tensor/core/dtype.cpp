#include "tensor/core/dtype.h"

namespace lithe {

std::optional<DType> dtype_from_name(std::string_view name) {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (dtype_name(static_cast<DType>(i)) == name) {
      return static_cast<DType>(i);
    }
  }
  return std::nullopt;
}

}  // namespace lithe
