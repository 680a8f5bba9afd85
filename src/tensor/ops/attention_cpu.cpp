#include <omp.h>

#include "tensor/core/tensor.h"
#include "tensor/ops/attention_rows.h"
#include "tensor/ops/vector_math.h"

namespace lithe {
namespace {

using attention_rows::kHidden;
using attention_rows::Masks;
using attention_rows::Pieces;

// One thread's buffers; shapes in AttentionTiles.
template <typename A>
struct Buffers {
  Buffers(const AttentionTiles& t, A* data) {
    Pieces<A> pieces(data);
    keys = pieces.take(t.dim * t.tile_keys);
    values = pieces.take(t.tile_keys * t.padded_dim);
    scores = pieces.take(t.block_queries * t.tile_keys);
    queries = pieces.take(t.block_queries * t.padded_dim);
    sums = pieces.take(t.tile_queries * t.padded_dim);
    bias = pieces.take(t.tile_keys);
    keep = pieces.take(t.tile_keys);
    maximum = pieces.take(t.tile_queries);
    denominator = pieces.take(t.tile_queries);
  }
  A* keys;         // [D, tile of keys]
  A* values;       // [tile of keys, D]
  A* scores;       // [block of queries, tile of keys]
  A* queries;      // [block of queries, D], 16-bit operands only
  A* sums;         // [tile of queries, D]: sum of exp(score - maximum) v
  A* bias;         // [tile of keys]
  A* keep;         // [tile of keys]
  A* maximum;      // [tile of queries]
  A* denominator;  // [tile of queries]
};

// The first `seen` scores x become exp(scale x + bias - maximum), the others up to `width`, a
// multiple of the lanes, zero; returns the factor by which earlier sums shrink, since the maximum
// may have grown.
template <typename A>
A softmax_step(A* x, int64_t seen, int64_t width, A scale, const A* bias, A& maximum,
               A& denominator) {
  A top = maximum;
  if (bias != nullptr) {
#pragma omp simd reduction(max : top)
    for (int64_t s = 0; s < width; ++s) {
      x[s] = s < seen ? x[s] * scale + bias[s] : kHidden<A>;
      top = x[s] > top ? x[s] : top;
    }
  } else {
#pragma omp simd reduction(max : top)
    for (int64_t s = 0; s < width; ++s) {
      x[s] = s < seen ? x[s] * scale : kHidden<A>;
      top = x[s] > top ? x[s] : top;
    }
  }
  // No visible key so far: any finite number in place of the maximum gives exp(-infinity) = 0.
  const A from = top == kHidden<A> ? A(0) : top;
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t s = 0; s < width; ++s) {
    x[s] = vec::exp(x[s] - from);
    sum += x[s];
  }
  const A shrink = maximum == kHidden<A> ? A(0) : std::exp(maximum - from);
  maximum = top;
  denominator = denominator * shrink + sum;
  return shrink;
}

template <typename T, typename A = acc_t<T>>
class Forward {
 public:
  Forward(const KernelArgs& args, const AttentionTiles& t, const Masks& masks)
      : t_(t),
        masks_(masks),
        q_(args.in[0].as<const T>()),
        k_(args.in[1].as<const T>()),
        v_(args.in[2].as<const T>()),
        out_(args.out[0].as<T>()),
        lse_(args.out[1].as<A>()),
        scale_(static_cast<A>(args.attr<AttentionAttrs>().scale)) {}

  // All keys against the queries [first, last) of one head.
  void run(int64_t b, int64_t head, int64_t first, int64_t last, const Buffers<A>& w) const {
    std::fill_n(w.sums, (last - first) * t_.padded_dim, A(0));
    std::fill_n(w.maximum, last - first, kHidden<A>);
    std::fill_n(w.denominator, last - first, A(0));
    const int64_t row = t_.kv_heads * t_.dim;
    for (int64_t key = 0; key < t_.keys; key += t_.tile_keys) {
      if (masks_.visible(last - 1) <= key) {
        break;
      }
      const int64_t n = std::min(t_.tile_keys, t_.keys - key);
      const int64_t at = (b * t_.keys + key) * row + head / t_.group * t_.dim;
      tile::transpose(k_ + at, row, n, t_.dim, w.keys, t_.tile_keys);
      attention_rows::pack(v_ + at, row, n, t_.dim, t_.padded_dim, w.values);
      if (masks_.key_mask != nullptr) {
        masks_.key_bias(b, key, n, w.bias);
      }
      for (int64_t i = first; i < last; i += t_.block_queries) {
        run_block(b, head, i, std::min(i + t_.block_queries, last), first, key, n, w);
      }
    }
    store(b, head, first, last, w);
  }

 private:
  // The keys [key, key + n) against the queries [begin, end); sums are kept from `first` on.
  void run_block(int64_t b, int64_t head, int64_t begin, int64_t end, int64_t first, int64_t key,
                 int64_t n, const Buffers<A>& w) const {
    const int64_t count = std::min(n, masks_.visible(end - 1) - key);
    if (count <= 0) {
      return;
    }
    const int64_t ld = t_.tile_keys;
    const int64_t row = t_.heads * t_.dim;
    const T* q = q_ + (b * t_.queries + begin) * row + head * t_.dim;
    tile::Strided<A> queries{w.queries, t_.padded_dim, 1};
    if constexpr (std::is_same_v<T, A>) {
      queries = {q, row, 1};
    } else {
      attention_rows::pack(q, row, end - begin, t_.dim, t_.padded_dim, w.queries);
    }
    const int64_t width = tile::padded<A>(count);
    tile::gemm<false>(end - begin, width, t_.dim, queries, w.keys, ld, w.scores, ld);
    for (int64_t t = begin; t < end; ++t) {
      A* x = w.scores + (t - begin) * ld;
      A* sums = w.sums + (t - first) * t_.padded_dim;
      const int64_t seen = std::clamp<int64_t>(masks_.visible(t) - key, 0, count);
      const A shrink =
          softmax_step(x, seen, width, scale_, masks_.key_mask != nullptr ? w.bias : nullptr,
                       w.maximum[t - first], w.denominator[t - first]);
      if (masks_.drops) {
        A* keep = w.keep;
        masks_.keep(b, head, t, key, width, keep);
#pragma omp simd
        for (int64_t s = 0; s < width; ++s) {
          x[s] *= keep[s];
        }
      }
      if (key > 0 && shrink != A(1)) {
        const int64_t padded_dim = t_.padded_dim;
#pragma omp simd
        for (int64_t i = 0; i < padded_dim; ++i) {
          sums[i] *= shrink;
        }
      }
    }
    tile::gemm<true>(end - begin, t_.padded_dim, count, tile::Strided<A>{w.scores, ld, 1}, w.values,
                     t_.padded_dim, w.sums + (begin - first) * t_.padded_dim, t_.padded_dim);
  }

  void store(int64_t b, int64_t head, int64_t first, int64_t last, const Buffers<A>& w) const {
    const int64_t dim = t_.dim;
    for (int64_t t = first; t < last; ++t) {
      const A denominator = w.denominator[t - first];
      const bool empty = denominator == A(0);  // no visible key; NaN is not 0 and goes on
      const A factor = empty ? A(0) : A(1) / denominator;
      const A* sums = w.sums + (t - first) * t_.padded_dim;
      T* out = out_ + ((b * t_.queries + t) * t_.heads + head) * t_.dim;
#pragma omp simd
      for (int64_t i = 0; i < dim; ++i) {
        out[i] = T(sums[i] * factor);
      }
      lse_[(b * t_.heads + head) * t_.queries + t] =
          empty ? kHidden<A> : w.maximum[t - first] + std::log(denominator);
    }
  }

  const AttentionTiles& t_;
  const Masks& masks_;
  const T* q_;
  const T* k_;
  const T* v_;
  T* out_;
  A* lse_;
  A scale_;
};

}  // namespace

void attention_cpu(const KernelArgs& args) {
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const AttentionTiles tiles(args.in[0].shape, args.in[1].shape, tile::kLanes<A>);
    const Masks masks(args, tiles, args.attr<AttentionAttrs>(), 3, 4);
    const Forward<T> forward(args, tiles, masks);
    const int64_t tasks = tiles.batch * tiles.heads * tiles.query_tiles;
    const int64_t each = tiles.forward_elements();
    // Tasks share no output, so who runs one does not matter.
#pragma omp parallel for schedule(dynamic) if (tasks > 1)
    for (int64_t task = 0; task < tasks; ++task) {
      const Buffers<A> buffers(tiles,
                               static_cast<A*>(args.workspace) + omp_get_thread_num() * each);
      const int64_t part = task % tiles.query_tiles;
      const int64_t head = task / tiles.query_tiles % tiles.heads;
      const int64_t b = task / tiles.query_tiles / tiles.heads;
      const int64_t first = part * tiles.tile_queries;
      forward.run(b, head, first, std::min(first + tiles.tile_queries, tiles.queries), buffers);
    }
  });
}

}  // namespace lithe
