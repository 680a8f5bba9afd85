#include "tensor/core/shape.h"

#include <algorithm>

namespace lithe {

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank) {
    throw ShapeError("shape", "rank {} is above the maximum of {}", dims.size(), kMaxRank);
  }
  for (int64_t d : dims) {
    push_back(d);
  }
}

void Shape::push_back(int64_t dim) {
  if (rank_ == kMaxRank) {
    throw ShapeError("shape", "rank {} is above the maximum of {}", rank_ + 1, kMaxRank);
  }
  if (dim < 0) {
    throw ShapeError("shape", "dimension {} is {}; dimensions must be >= 0", rank_, dim);
  }
  dims_[static_cast<size_t>(rank_++)] = dim;
}

int64_t Shape::numel() const { return product(0, rank_); }

int64_t Shape::product(int from, int to) const {
  int64_t n = 1;
  for (int i = from; i < to; ++i) {
    n = checked_mul(n, dims_[static_cast<size_t>(i)]);
  }
  return n;
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && std::equal(begin(), end(), other.begin());
}

std::string to_string(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

int64_t byte_size(DType dtype, const Shape& shape) {
  const int64_t n = shape.numel();
  if (dtype == DType::i4) {
    return n / 2 + n % 2;
  }
  return checked_mul(n, dtype_bits(dtype) / 8);
}

Shape broadcast(const Shape& a, const Shape& b, std::string_view where) {
  const int rank = std::max(a.rank(), b.rank());
  Shape out;
  for (int i = 0; i < rank; ++i) {
    const int ia = i - (rank - a.rank());
    const int ib = i - (rank - b.rank());
    const int64_t da = ia < 0 ? 1 : a[ia];
    const int64_t db = ib < 0 ? 1 : b[ib];
    if (da != db && da != 1 && db != 1) {
      throw ShapeError(where, "shapes {} and {} do not broadcast: dimension {} is {} against {}", a,
                       b, i, da, db);
    }
    out.push_back(da == 1 ? db : da);
  }
  return out;
}

}  // namespace lithe
