#include "data/batch.h"

#include <algorithm>

namespace lithe {

const Tensor* Batch::find(std::string_view name) const {
  const auto it = std::find_if(fields.begin(), fields.end(),
                               [&](const BatchField& field) { return field.name == name; });
  return it == fields.end() ? nullptr : &it->tensor;
}

Tensor& Batch::field(std::string_view name, DType dtype, const Shape& shape) {
  auto it = std::find_if(fields.begin(), fields.end(),
                         [&](const BatchField& field) { return field.name == name; });
  if (it == fields.end()) {
    fields.push_back({std::string(name), Tensor(dtype, shape)});
    return fields.back().tensor;
  }
  if (it->tensor.dtype() != dtype || it->tensor.shape() != shape) {
    it->tensor = Tensor(dtype, shape);
  }
  return it->tensor;
}

}  // namespace lithe
