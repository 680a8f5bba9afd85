// What the forward and the backward pass of attention on the CPU share: packing of tiles, masks and
// dropout of one row of scores.
#pragma once

#include <cmath>
#include <limits>

#include "tensor/core/convert.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/attention_tiles.h"
#include "tensor/ops/dropout.h"

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

// The same transposed, [width, padded] with padded >= rows. By small squares, so that reads and
// writes both stay in a few cache lines.
template <typename T, typename A>
void pack_transposed(const T* from, int64_t stride, int64_t rows, int64_t width, int64_t padded,
                     A* to) {
  constexpr int64_t kSquare = 16;
  for (int64_t r = 0; r < rows; r += kSquare) {
    const int64_t row_end = std::min(r + kSquare, rows);
    for (int64_t i = 0; i < width; ++i) {
      A* out = to + i * padded;
#pragma omp simd
      for (int64_t s = r; s < row_end; ++s) {
        out[s] = convert<A>(from[s * stride + i]);
      }
    }
  }
  for (int64_t i = 0; i < width; ++i) {
    std::fill(to + i * padded + rows, to + (i + 1) * padded, A(0));
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
      threshold = dropout_threshold(attrs.dropout);
      kept_scale = 1 / (1 - attrs.dropout);
      drops = true;
    }
  }

  // Keys [0, n) are visible to query t as far as causality goes.
  int64_t visible(int64_t t) const {
    return causal ? std::clamp<int64_t>(t + tiles.keys - tiles.queries + 1, 0, tiles.keys)
                  : tiles.keys;
  }

  // 0 for visible and -infinity for hidden keys [first, first + n).
  template <typename A>
  void key_bias(int64_t b, int64_t first, int64_t n, A* bias) const {
    for (int64_t s = 0; s < n; ++s) {
      bias[s] = key_mask[b * tiles.keys + first + s] ? A(0) : kHidden<A>;
    }
  }

  // 0 or 1 / (1 - p) for the keys [first, first + n) of query t: what dropout_keep gives for the
  // element of the full tensor [B, N, T, S], four of them from each block of random words.
  template <typename A>
  void keep(int64_t b, int64_t head, int64_t t, int64_t first, int64_t n, A* factor) const {
    const uint64_t begin =
        static_cast<uint64_t>(((b * tiles.heads + head) * tiles.queries + t) * tiles.keys + first);
    const uint64_t end = begin + static_cast<uint64_t>(n);
    const A kept = static_cast<A>(kept_scale);
    for (uint64_t block = begin / 4; block * 4 < end; ++block) {
      const PhiloxBlock words = philox(seed, stream, block);
      for (uint64_t w = 0; w < 4; ++w) {
        const uint64_t i = block * 4 + w;
        if (i >= begin && i < end) {
          factor[i - begin] = words.word[w] >= threshold ? kept : A(0);
        }
      }
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
