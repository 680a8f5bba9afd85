// Dimensions of a contiguous row-major tensor, kept inline: graphs hold thousands of them.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "tensor/core/checked.h"
#include "tensor/core/dtype.h"

namespace lithe {

class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return dims_[static_cast<size_t>(axis)]; }
  int64_t& operator[](int axis) { return dims_[static_cast<size_t>(axis)]; }
  // Dimension counted from the end: back(0) is the last one.
  int64_t back(int from_end = 0) const { return dims_[static_cast<size_t>(rank_ - 1 - from_end)]; }
  const int64_t* begin() const { return dims_.data(); }
  const int64_t* end() const { return dims_.data() + rank_; }

  // Number of elements; 1 for a scalar (rank 0). Throws ShapeError on overflow.
  int64_t numel() const;
  // Product of the dimensions [from, to).
  int64_t product(int from, int to) const;
  void push_back(int64_t dim);

  bool operator==(const Shape& other) const;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

std::string to_string(const Shape& shape);  // "[32, 128, 768]"

// Bytes of a tensor; 4-bit elements round up to whole bytes.
int64_t byte_size(DType dtype, const Shape& shape);

// NumPy broadcasting of two shapes; throws ShapeError("where", ...) with both shapes.
Shape broadcast(const Shape& a, const Shape& b, std::string_view where);

}  // namespace lithe

template <>
struct fmt::formatter<lithe::Shape> : fmt::formatter<std::string> {
  auto format(const lithe::Shape& shape, fmt::format_context& ctx) const {
    return fmt::formatter<std::string>::format(lithe::to_string(shape), ctx);
  }
};
