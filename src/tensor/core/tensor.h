// A tensor in host memory: dtype, shape and shared, 64-byte aligned storage; contiguous, row-major.
// Used at the borders (files, batches, golden values). Inside a step the plan places values in the
// arena.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "tensor/core/shape.h"

namespace lithe {

class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, const Shape& shape);  // zero-filled

  template <typename T>
  static Tensor from(const Shape& shape, std::span<const T> values) {
    Tensor out(dtype_of<T>::value, shape);
    out.check_numel(values.size());
    std::copy(values.begin(), values.end(), out.as<T>().begin());
    return out;
  }
  template <typename T>
  static Tensor from(const Shape& shape, const std::vector<T>& values) {
    return from(shape, std::span<const T>(values));
  }

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t numel() const { return shape_.numel(); }
  int64_t bytes() const { return byte_size(dtype_, shape_); }
  bool defined() const { return storage_ != nullptr; }
  std::byte* data() { return storage_.get(); }
  const std::byte* data() const { return storage_.get(); }

  // Typed view; throws ShapeError when T is not the dtype.
  template <typename T>
  std::span<T> as() {
    check_dtype(dtype_of<T>::value);
    return {reinterpret_cast<T*>(storage_.get()), static_cast<size_t>(numel())};
  }
  template <typename T>
  std::span<const T> as() const {
    check_dtype(dtype_of<T>::value);
    return {reinterpret_cast<const T*>(storage_.get()), static_cast<size_t>(numel())};
  }

  // Same storage, another shape of as many elements.
  Tensor reshaped(const Shape& shape) const;
  // A converted copy (floats to floats by round to nearest even).
  Tensor to(DType dtype) const;
  Tensor clone() const;

 private:
  void check_dtype(DType wanted) const;
  void check_numel(size_t count) const;

  DType dtype_ = DType::f32;
  Shape shape_{0};
  std::shared_ptr<std::byte> storage_;
};

// Calls f.operator()<T>() with the C++ type of a floating dtype; `where` names the caller in the
// error.
template <typename F>
decltype(auto) dispatch_floating(DType dtype, std::string_view where, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f.template operator()<double>();
    case DType::f32:
      return f.template operator()<float>();
    case DType::bf16:
      return f.template operator()<bf16>();
    case DType::f16:
      return f.template operator()<f16>();
    default:
      throw ShapeError(where, "{} is not a floating type; cast to fp32, fp64, bf16 or fp16 first",
                       dtype_name(dtype));
  }
}

// The same over every whole-byte dtype.
template <typename F>
decltype(auto) dispatch_any(DType dtype, std::string_view where, F&& f) {
  switch (dtype) {
    case DType::i8:
      return f.template operator()<int8_t>();
    case DType::u8:
      return f.template operator()<uint8_t>();
    case DType::i32:
      return f.template operator()<int32_t>();
    case DType::i64:
      return f.template operator()<int64_t>();
    case DType::boolean:
      return f.template operator()<bool>();
    case DType::i4:
      throw ShapeError(where, "int4 is packed; unpack it first");
    default:
      return dispatch_floating(dtype, where, std::forward<F>(f));
  }
}

}  // namespace lithe
