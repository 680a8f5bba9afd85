// Dropout whose mask is stored, as eager frameworks do: drawn once, read by both directions. The
// mask is the one that dropout (dropout.h) draws with the same attributes.
#pragma once

#include "tensor/ops/dropout.h"

namespace lithe {

struct DropoutMaskAttrs {
  DropoutAttrs dropout = {};
  bool packed = false;  // a bit an element instead of a byte
  // Of what is dropped; 8 random bits an element count by rows (DropoutAttrs::bits).
  int64_t rows = 1;
  int64_t width = 1;
};

// Bytes of a mask of `elements` elements.
LITHE_HOST_DEVICE inline int64_t dropout_mask_bytes(int64_t elements, bool packed) {
  return packed ? (elements + 7) / 8 : elements;
}

// The mask for a value of `shape`: uint8 [elements], 1 where kept; packed [ceil(elements / 8)], the
// lowest bit first, the rest of the last byte 0. rng as dropout's. It has no gradient.
ValueId dropout_mask(Graph& graph, ValueId rng, const DropoutAttrs& attrs, const Shape& shape,
                     bool packed);
// y = x * keep * dropout_scale(p), with a mask of x's size. Backward keeps the mask.
ValueId dropout_apply(Graph& graph, ValueId x, ValueId mask, const DropoutAttrs& attrs,
                      bool packed);

// Both have DropoutMaskAttrs.
extern const OpDef dropout_mask_op, dropout_apply_op;

void dropout_mask_cpu(const KernelArgs& args);
void dropout_apply_cpu(const KernelArgs& args);

// Whether elements are kept. Neighbours share random blocks, so ask in order.
template <int kBits>
class KeptElements {
 public:
  LITHE_HOST_DEVICE KeptElements(const int64_t* rng, const DropoutMaskAttrs& attrs)
      : seed_(static_cast<uint64_t>(rng[0])),
        stream_(mix(attrs.dropout.key, static_cast<uint64_t>(rng[1]))),
        threshold_(dropout_threshold(attrs.dropout.p, kBits)),
        width_(kBits == 8 ? attrs.width : attrs.rows * attrs.width),
        row_blocks_((width_ + kLanes - 1) / kLanes) {}

  LITHE_HOST_DEVICE bool operator()(int64_t i) {
    const int64_t row = kBits == 8 ? i / width_ : 0;
    const int64_t s = i - row * width_;
    const int64_t wanted = row * row_blocks_ + s / kLanes;
    if (wanted != drawn_) {
      block_ = dropout_block(seed_, stream_, static_cast<uint64_t>(wanted));
      drawn_ = wanted;
    }
    return dropout_lane<kBits>(block_, static_cast<int>(s % kLanes)) >= threshold_;
  }

 private:
  static constexpr int kLanes = kLanesOfBlock<kBits>;
  uint64_t seed_;
  uint64_t stream_;
  uint32_t threshold_;
  int64_t width_;
  int64_t row_blocks_;
  int64_t drawn_ = -1;
  PhiloxBlock block_{};
};

}  // namespace lithe
