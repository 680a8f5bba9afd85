#include "tensor/core/tensor.h"

#include "tensor/core/convert.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace lithe {
namespace {

constexpr std::align_val_t kAlignment{64};

std::shared_ptr<std::byte> allocate_host(int64_t bytes) {
  const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  auto* raw = static_cast<std::byte*>(::operator new(size, kAlignment));
  std::memset(raw, 0, size);
  return {raw, [](std::byte* p) { ::operator delete(p, kAlignment); }};
}

}  // namespace

Tensor::Tensor(DType dtype, const Shape& shape)
    : dtype_(dtype), shape_(shape), storage_(allocate_host(byte_size(dtype, shape))) {}

Tensor Tensor::reshaped(const Shape& shape) const {
  if (shape.numel() != numel()) {
    throw ShapeError("reshape", "{} has {} elements, {} has {}", shape_, numel(), shape,
                     shape.numel());
  }
  Tensor out = *this;
  out.shape_ = shape;
  return out;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) {
    return *this;
  }
  Tensor out(dtype, shape_);
  dispatch_any(dtype_, "cast", [&]<typename From>() {
    dispatch_any(dtype, "cast", [&]<typename To>() {
      auto from = as<From>();
      auto to = out.as<To>();
      for (size_t i = 0; i < from.size(); ++i) {
        to[i] = convert<To>(from[i]);
      }
    });
  });
  return out;
}

Tensor Tensor::clone() const {
  Tensor out(dtype_, shape_);
  std::memcpy(out.data(), data(), static_cast<size_t>(bytes()));
  return out;
}

void Tensor::check_dtype(DType wanted) const {
  if (wanted != dtype_) {
    throw ShapeError("tensor", "asked for {} of a {} tensor {}; cast it first", dtype_name(wanted),
                     dtype_name(dtype_), shape_);
  }
}

void Tensor::check_numel(size_t count) const {
  if (static_cast<int64_t>(count) != numel()) {
    throw ShapeError("tensor", "{} values for shape {} of {} elements", count, shape_, numel());
  }
}

}  // namespace lithe
