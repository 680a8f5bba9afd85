// How updates are cut into chunks and what they measure of one, on every device.
#pragma once

#include "tensor/core/dtype.h"
#include "tensor/ops/update.h"

namespace lithe {

// Sums are taken over this many elements each and joined in order, so that no result depends on a
// split among threads, blocks or launches.
inline constexpr int64_t kUpdateChunk = 8192;

inline int64_t update_chunks(int64_t elements) {
  return elements / kUpdateChunk + (elements % kUpdateChunk != 0 ? 1 : 0);
}

// Of one chunk, or of all.
struct ChunkSums {
  double squares = 0;  // of the gradient
  double moved = 0;    // |dw|, each over ChangeRule::under
  double size = 0;     // |w|

  LITHE_HOST_DEVICE void add(const ChunkSums& other) {
    squares += other.squares;
    moved += other.moved;
    size += other.size;
  }
};

// The metrics as one formula: |dw| counts relative to max(share |w|, least).
template <typename A>
struct ChangeRule {
  A share = 0, least = 1;

  LITHE_HOST_DEVICE explicit ChangeRule(const UpdateMeasures& measures) {
    if (measures.change == ChangeMetric::guarded || measures.change == ChangeMetric::relative) {
      share = A(1);
      least = measures.change == ChangeMetric::guarded ? static_cast<A>(measures.floor) : A(0);
    }
  }
  LITHE_HOST_DEVICE static A magnitude(A x) { return x < A(0) ? -x : x; }
  LITHE_HOST_DEVICE A under(A before) const {
    const A size = share * magnitude(before);
    return size > least ? size : least;
  }
};

// The change of a tensor of `elements` from the sums of all its chunks.
LITHE_HOST_DEVICE inline double change_of(const UpdateMeasures& measures, const ChunkSums& total,
                                          int64_t elements) {
  if (elements == 0) {
    return 0;
  }
  const auto n = static_cast<double>(elements);
  if (measures.change != ChangeMetric::norm_ratio) {
    return total.moved / n;
  }
  const double least = n * measures.floor;
  return total.moved / (total.size > least ? total.size : least);
}

}  // namespace lithe
