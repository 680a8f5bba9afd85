// What the forward and the backward pass of attention on the CPU share: packing of tiles, masks and
// dropout of one row of scores.
#pragma once

#include <array>
#include <cmath>
#include <limits>

#include "tensor/core/convert.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/attention_tiles.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/random_words.h"
#include "tensor/ops/tile_transpose.h"

namespace lithe::attention_rows {

template <typename A>
inline constexpr A kHidden = -std::numeric_limits<A>::infinity();

// Rows of `width` elements, `stride` apart, as [rows, padded] with zeros behind.
template <typename T, typename A>
void pack(const T* from, int64_t stride, int64_t rows, int64_t width, int64_t padded, A* to) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = from + r * stride;
    A* out = to + r * padded;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      out[i] = convert<A>(row[i]);
    }
    for (int64_t i = width; i < padded; ++i) {
      out[i] = A(0);
    }
  }
}

// What hides keys from a query, and drops probabilities.
struct Masks {
  Masks(const KernelArgs& args, const AttentionTiles& t, const AttentionAttrs& attrs, size_t mask,
        size_t rng)
      : tiles(t), causal(attrs.causal) {
    if (args.in.size() > mask) {
      key_mask = args.in[mask].as<const bool>();
    }
    if (attrs.dropout > 0) {
      const int64_t* numbers = args.in[rng].as<const int64_t>();
      seed = static_cast<uint64_t>(numbers[0]);
      stream = mix(attrs.dropout_key, static_cast<uint64_t>(numbers[1]));
      threshold = dropout_threshold(attrs.dropout, kAttentionDropoutBits);
      kept_scale = dropout_scale(attrs.dropout, kAttentionDropoutBits);
      drops = true;
    }
  }

  // Keys [0, n) are visible to query t as far as causality goes.
  int64_t visible(int64_t t) const {
    return causal ? std::clamp<int64_t>(t + tiles.keys - tiles.queries + 1, 0, tiles.keys)
                  : tiles.keys;
  }

  // 0 for visible and -infinity for hidden keys [first, first + n), and behind them.
  template <typename A>
  void key_bias(int64_t b, int64_t first, int64_t n, A* bias) const {
    for (int64_t s = 0; s < n; ++s) {
      bias[s] = key_mask[b * tiles.keys + first + s] ? A(0) : kHidden<A>;
    }
    std::fill(bias + n, bias + tiles.tile_keys, kHidden<A>);
  }

  // 0 or the kept elements' scale for the keys [first, first + n), n <= kMaxKeys, of query t.
  template <typename A>
  void keep(int64_t b, int64_t head, int64_t t, int64_t first, int64_t n, A* factor) const {
    alignas(64) std::array<uint8_t, AttentionTiles::kMaxKeys + 2 * kByteLanesAtOnce> lanes;
    const int64_t row = (b * tiles.heads + head) * tiles.queries + t;
    const int64_t block = row * probability_blocks(tiles.keys) + first / kProbabilityLanes;
    const int64_t skipped = first % kProbabilityLanes;
    for (int64_t i = 0; i < skipped + n; i += kByteLanesAtOnce) {
      random_lanes(seed, stream, static_cast<uint64_t>(block + i / kProbabilityLanes),
                   lanes.data() + i);
    }
    const uint8_t* lane = lanes.data() + skipped;
    const A kept = static_cast<A>(kept_scale);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      factor[i] = lane[i] >= threshold ? kept : A(0);
    }
  }

  const AttentionTiles& tiles;
  bool causal = false;
  bool drops = false;
  const bool* key_mask = nullptr;
  uint64_t seed = 0;
  uint64_t stream = 0;
  uint32_t threshold = 0;
  double kept_scale = 1;
};

// A piece of one thread's workspace after another.
template <typename A>
class Pieces {
 public:
  explicit Pieces(A* data) : next_(data) {}
  A* take(int64_t n) {
    A* out = next_;
    next_ += n;
    return out;
  }

 private:
  A* next_;
};

}  // namespace lithe::attention_rows
