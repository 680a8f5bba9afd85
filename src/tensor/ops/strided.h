// Walking a tensor in another order than its memory's: broadcast (stride 0), permuted and reduced
// dimensions become sizes and strides, and neighbouring dimensions are merged where that is
// possible.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "tensor/core/shape.h"

namespace lithe {

// Sizes and, for each of `kOperands` tensors, element strides; the last dimension varies fastest.
template <int kOperands>
struct Strided {
  using Offsets = std::array<int64_t, kOperands>;

  int rank = 0;
  std::array<int64_t, Shape::kMaxRank> size{};
  std::array<Offsets, Shape::kMaxRank> stride{};  // [dimension][operand]

  // Appends a dimension inside the others, or widens the last one where all operands allow it.
  void push(int64_t n, const Offsets& strides) {
    if (n == 1) {
      return;
    }
    if (rank > 0) {
      const auto last = static_cast<size_t>(rank - 1);
      bool joins = true;
      for (size_t k = 0; k < kOperands; ++k) {
        joins = joins && stride[last][k] == n * strides[k];
      }
      if (joins) {
        size[last] *= n;
        stride[last] = strides;
        return;
      }
    }
    size[static_cast<size_t>(rank)] = n;
    stride[static_cast<size_t>(rank)] = strides;
    ++rank;
  }
  // Gives a walk of one element a dimension, so that there always is a last one.
  void finish() {
    if (rank == 0) {
      rank = 1;
      size[0] = 1;
      stride[0].fill(1);
    }
  }
  int64_t numel() const {
    int64_t n = 1;
    for (int d = 0; d < rank; ++d) {
      n *= size[static_cast<size_t>(d)];
    }
    return n;
  }
  int64_t inner() const { return size[static_cast<size_t>(rank - 1)]; }
  const Offsets& inner_stride() const { return stride[static_cast<size_t>(rank - 1)]; }
  // The same without the last dimension.
  Strided outer() const {
    Strided out = *this;
    --out.rank;
    return out;
  }
};

// A position in a walk and the operands' offsets there.
template <int kOperands>
class Cursor {
 public:
  Cursor(const Strided<kOperands>& walk, int64_t position) : walk_(walk) {
    // At position 0 there is nothing to divide, and an empty walk has sizes of 0.
    for (int i = walk.rank - 1; i >= 0 && position > 0; --i) {
      const auto d = static_cast<size_t>(i);
      index_[d] = position % walk.size[d];
      position /= walk.size[d];
      for (size_t k = 0; k < kOperands; ++k) {
        offset_[k] += index_[d] * walk.stride[d][k];
      }
    }
  }
  const std::array<int64_t, kOperands>& offset() const { return offset_; }
  void advance() {
    for (int i = walk_.rank - 1; i >= 0; --i) {
      const auto d = static_cast<size_t>(i);
      const bool wraps = ++index_[d] == walk_.size[d];
      const int64_t steps = wraps ? 1 - walk_.size[d] : 1;
      for (size_t k = 0; k < kOperands; ++k) {
        offset_[k] += steps * walk_.stride[d][k];
      }
      if (!wraps) {
        return;
      }
      index_[d] = 0;
    }
  }

 private:
  const Strided<kOperands>& walk_;
  std::array<int64_t, Shape::kMaxRank> index_{};
  std::array<int64_t, kOperands> offset_{};
};

// Calls f(position, offsets, count) for the pieces of the last dimension that make up [begin, end).
template <int kOperands, typename F>
void for_rows(const Strided<kOperands>& walk, int64_t begin, int64_t end, F&& f) {
  const int64_t inner = walk.inner();
  const Strided<kOperands> outer = walk.outer();
  Cursor<kOperands> row(outer, begin / inner);
  int64_t column = begin % inner;
  for (int64_t i = begin; i < end;) {
    const int64_t count = std::min(inner - column, end - i);
    std::array<int64_t, kOperands> at = row.offset();
    for (size_t k = 0; k < kOperands; ++k) {
      at[k] += column * walk.inner_stride()[k];
    }
    f(i, at, count);
    i += count;
    column = 0;
    row.advance();
  }
}

// Element strides of a contiguous tensor.
inline std::array<int64_t, Shape::kMaxRank> row_major_strides(const Shape& shape) {
  std::array<int64_t, Shape::kMaxRank> out{};
  int64_t step = 1;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    out[static_cast<size_t>(d)] = step;
    step *= shape[d];
  }
  return out;
}

// Strides by which a tensor of shape `from` is read along the dimensions of `to`; 0 where it
// repeats.
inline std::array<int64_t, Shape::kMaxRank> broadcast_strides(const Shape& from, const Shape& to) {
  const auto own = row_major_strides(from);
  std::array<int64_t, Shape::kMaxRank> out{};
  const int missing = to.rank() - from.rank();
  for (int d = missing; d < to.rank(); ++d) {
    if (from[d - missing] != 1) {
      out[static_cast<size_t>(d)] = own[static_cast<size_t>(d - missing)];
    }
  }
  return out;
}

}  // namespace lithe
