#include <omp.h>

#include "tensor/core/tensor.h"
#include "tensor/ops/attention_gradients.h"
#include "tensor/ops/attention_rows.h"
#include "tensor/ops/column_sum.h"
#include "tensor/ops/parallel.h"
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
    keys_t = pieces.take(t.dim * t.tile_keys);
    values_t = pieces.take(t.dim * t.tile_keys);
    keys = pieces.take(t.tile_keys * t.padded_dim);
    dk = pieces.take(t.tile_keys * t.padded_dim);
    dv = pieces.take(t.tile_keys * t.padded_dim);
    p = pieces.take(t.block_queries * t.tile_keys);
    ds = pieces.take(t.block_queries * t.tile_keys);
    queries = pieces.take(t.block_queries * t.padded_dim);
    dout = pieces.take(t.block_queries * t.padded_dim);
    dq = pieces.take(t.block_queries * t.padded_dim);
    bias = pieces.take(t.tile_keys);
    keep = pieces.take(t.tile_keys);
    delta = pieces.take(t.block_queries);
  }
  A *keys_t, *values_t;    // [D, tile of keys]
  A *keys, *dk, *dv;       // [tile of keys, D]
  A *p, *ds;               // [block of queries, tile of keys]
  A *queries, *dout, *dq;  // [block of queries, D]
  A *bias, *keep;          // [tile of keys]
  A* delta;                // [block of queries]
};

template <typename T, typename A = acc_t<T>>
class Backward {
 public:
  // `wide_dq` takes dq in the type of the sums where several tiles of keys add to it, in rows
  // `wide_row` apart; `row_sums` [B, N, T, 2] is for delta where there is no output.
  Backward(const KernelArgs& args, const AttentionTiles& t, const Masks& masks, A* wide_dq,
           int64_t wide_row, A* row_sums)
      : t_(t),
        masks_(masks),
        q_(args.in[0].as<const T>()),
        k_(args.in[1].as<const T>()),
        v_(args.in[2].as<const T>()),
        out_(args.in[3].as<const T>()),
        lse_(args.in[4].as<const A>()),
        dout_(args.in[5].as<const T>()),
        to_(args),
        wide_dq_(wide_dq),
        wide_row_(wide_row),
        row_sums_(row_sums),
        scale_(static_cast<A>(args.attr<AttentionGradAttrs>().forward.scale)) {}

  // One key head and all queries of the heads that share it.
  void run(int64_t b, int64_t kv_head, const Buffers<A>& w) const {
    if (out_ == nullptr) {
      sum_rows(b, kv_head, w);
    }
    const int64_t row = t_.kv_heads * t_.dim;
    for (int64_t key = 0; key < t_.keys; key += t_.tile_keys) {
      const int64_t n = std::min(t_.tile_keys, t_.keys - key);
      const int64_t at = (b * t_.keys + key) * row + kv_head * t_.dim;
      pack_keys(b, key, n, at, w);
      attention_rows::pack(k_ + at, row, n, t_.dim, t_.padded_dim, w.keys);
      std::fill_n(w.dk, n * t_.padded_dim, A(0));
      std::fill_n(w.dv, n * t_.padded_dim, A(0));
      for (int64_t head = kv_head * t_.group; head < (kv_head + 1) * t_.group; ++head) {
        for (int64_t t = 0; t < t_.queries; t += t_.block_queries) {
          run_block(b, head, t, std::min(t + t_.block_queries, t_.queries), key, n, w);
        }
      }
      const int64_t to = (b * t_.keys + key) * to_.key_row + kv_head * t_.dim;
      if (to_.dk != nullptr) {
        unpack(w.dk, n, to_.key_row, to_.dk + to);
      }
      if (to_.dv != nullptr) {
        unpack(w.dv, n, to_.key_row, to_.dv + to);
      }
    }
  }

 private:
  // The keys [key, key + n) and their values, whose first element is at `at`.
  void pack_keys(int64_t b, int64_t key, int64_t n, int64_t at, const Buffers<A>& w) const {
    const int64_t row = t_.kv_heads * t_.dim;
    tile::transpose(k_ + at, row, n, t_.dim, w.keys_t, t_.tile_keys);
    tile::transpose(v_ + at, row, n, t_.dim, w.values_t, t_.tile_keys);
    if (masks_.key_mask != nullptr) {
      masks_.key_bias(b, key, n, w.bias);
    }
  }

  // A sweep of its own over the keys for rowsum(P) and rowsum(P ∘ dP) of each query.
  void sum_rows(int64_t b, int64_t kv_head, const Buffers<A>& w) const {
    const int64_t row = t_.heads * t_.dim;
    const int64_t pd = t_.padded_dim;
    std::fill_n(sums_of(b, kv_head * t_.group, 0), 2 * t_.group * t_.queries, A(0));
    for (int64_t key = 0; key < t_.keys; key += t_.tile_keys) {
      const int64_t n = std::min(t_.tile_keys, t_.keys - key);
      pack_keys(b, key, n, ((b * t_.keys + key) * t_.kv_heads + kv_head) * t_.dim, w);
      for (int64_t head = kv_head * t_.group; head < (kv_head + 1) * t_.group; ++head) {
        for (int64_t begin = 0; begin < t_.queries; begin += t_.block_queries) {
          const int64_t rows = std::min(t_.block_queries, t_.queries - begin);
          const int64_t count = std::min(n, masks_.visible(begin + rows - 1) - key);
          if (count <= 0) {
            continue;
          }
          const int64_t at = (b * t_.queries + begin) * row + head * t_.dim;
          attention_rows::pack(q_ + at, row, rows, t_.dim, pd, w.queries);
          attention_rows::pack(dout_ + at, row, rows, t_.dim, pd, w.dout);
          multiply(rows, tile::padded<A>(count), w);
          for (int64_t r = 0; r < rows; ++r) {
            const int64_t seen = std::clamp<int64_t>(masks_.visible(begin + r) - key, 0, count);
            sum_row(b, head, begin + r, key, seen, tile::padded<A>(count), w.p + r * t_.tile_keys,
                    w.ds + r * t_.tile_keys, w);
          }
        }
      }
    }
  }
  A* sums_of(int64_t b, int64_t head, int64_t t) const {
    return row_sums_ + 2 * ((b * t_.heads + head) * t_.queries + t);
  }
  void sum_row(int64_t b, int64_t head, int64_t t, int64_t key, int64_t seen, int64_t width, A* p,
               const A* dp, const Buffers<A>& w) const {
    logarithms(b, head, t, seen, width, p, w);
    const A* keep = w.keep;
    if (masks_.drops) {
      masks_.keep(b, head, t, key, width, w.keep);
    }
    const bool drops = masks_.drops;
    A weight = 0;
    A weighted = 0;
#pragma omp simd reduction(+ : weight, weighted)
    for (int64_t s = 0; s < width; ++s) {
      const A probability = vec::exp(p[s]);
      weight += probability;
      weighted += s < seen ? probability * (drops ? dp[s] * keep[s] : dp[s]) : A(0);
    }
    A* const sums = sums_of(b, head, t);
    sums[0] += weight;
    sums[1] += weighted;
  }

  // Scores and dO Vᵀ of a block of queries.
  void multiply(int64_t rows, int64_t width, const Buffers<A>& w) const {
    const int64_t ld = t_.tile_keys;
    const int64_t pd = t_.padded_dim;
    tile::gemm<false>(rows, width, t_.dim, tile::Strided<A>{w.queries, pd, 1}, w.keys_t, ld, w.p,
                      ld);
    tile::gemm<false>(rows, width, t_.dim, tile::Strided<A>{w.dout, pd, 1}, w.values_t, ld, w.ds,
                      ld);
  }

  void unpack(const A* from, int64_t rows, int64_t stride, T* to) const {
    const int64_t dim = t_.dim;
    for (int64_t r = 0; r < rows; ++r) {
      const A* row = from + r * t_.padded_dim;
      T* out = to + r * stride;
#pragma omp simd
      for (int64_t i = 0; i < dim; ++i) {
        out[i] = T(row[i]);
      }
    }
  }

  // The keys [key, key + n) against the queries [begin, end) of one head.
  void run_block(int64_t b, int64_t head, int64_t begin, int64_t end, int64_t key, int64_t n,
                 const Buffers<A>& w) const {
    const int64_t rows = end - begin;
    const int64_t row = t_.heads * t_.dim;
    const int64_t at = (b * t_.queries + begin) * row + head * t_.dim;
    const int64_t count = std::min(n, masks_.visible(end - 1) - key);
    if (count <= 0) {
      if (key == 0 && to_.dq != nullptr) {
        std::fill_n(w.dq, rows * t_.padded_dim, A(0));
        store_dq(b, head, begin, rows, key, w);
      }
      return;
    }
    const int64_t ld = t_.tile_keys;
    const int64_t pd = t_.padded_dim;
    const int64_t width = tile::padded<A>(count);
    attention_rows::pack(q_ + at, row, rows, t_.dim, pd, w.queries);
    attention_rows::pack(dout_ + at, row, rows, t_.dim, pd, w.dout);
    // All rows at once, so that their cache misses overlap.
    for (int64_t r = 0; r < rows; ++r) {
      if (out_ != nullptr) {
        w.delta[r] = dot(at + r * row, w.dout + r * pd);
      } else {
        const A* const sums = sums_of(b, head, begin + r);
        w.delta[r] = sums[0] > 0 ? sums[1] / sums[0] : A(0);
      }
    }
    multiply(rows, width, w);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t r = t - begin;
      const int64_t seen = std::clamp<int64_t>(masks_.visible(t) - key, 0, count);
      row_gradient(b, head, t, key, seen, width, w.delta[r], w.p + r * ld, w.ds + r * ld, w);
    }
    if (to_.dv != nullptr) {
      tile::gemm<true>(count, pd, rows, tile::Strided<A>{w.p, 1, ld}, w.dout, pd, w.dv, pd);
    }
    if (to_.dk != nullptr) {
      tile::gemm<true>(count, pd, rows, tile::Strided<A>{w.ds, 1, ld}, w.queries, pd, w.dk, pd);
    }
    if (to_.dq != nullptr) {
      tile::gemm<false>(rows, pd, count, tile::Strided<A>{w.ds, ld, 1}, w.keys, pd, w.dq, pd);
      store_dq(b, head, begin, rows, key, w);
    }
  }

  // dO · O of one query: what the softmax's gradient subtracts.
  A dot(int64_t at, const A* dout) const {
    // A local pointer: through the member the compiler gathers element by element.
    const T* out = out_ + at;
    const int64_t dim = t_.dim;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < dim; ++i) {
      sum += dout[i] * static_cast<A>(out[i]);
    }
    return sum;
  }

  // Of the probabilities, from scores p; hides all where the query sees nothing.
  void logarithms(int64_t b, int64_t head, int64_t t, int64_t& seen, int64_t width, A* p,
                  const Buffers<A>& w) const {
    const A lse = lse_[(b * t_.heads + head) * t_.queries + t];
    if (lse == kHidden<A>) {
      seen = 0;
    }
    const A scale = scale_;
    const A* bias = w.bias;
    if (masks_.key_mask != nullptr) {
#pragma omp simd
      for (int64_t s = 0; s < width; ++s) {
        p[s] = s < seen ? p[s] * scale + bias[s] - lse : kHidden<A>;
      }
    } else {
#pragma omp simd
      for (int64_t s = 0; s < width; ++s) {
        p[s] = s < seen ? p[s] * scale - lse : kHidden<A>;
      }
    }
  }

  // From scores p and dO vᵀ in ds: the probabilities (with dropout) and the gradient of the scores.
  void row_gradient(int64_t b, int64_t head, int64_t t, int64_t key, int64_t seen, int64_t width,
                    A delta, A* p, A* ds, const Buffers<A>& w) const {
    logarithms(b, head, t, seen, width, p, w);
    const A scale = scale_;
    const A* keep = w.keep;
    if (masks_.drops) {
      masks_.keep(b, head, t, key, width, w.keep);
#pragma omp simd
      for (int64_t s = 0; s < width; ++s) {
        const A probability = vec::exp(p[s]);
        ds[s] = s < seen ? probability * (ds[s] * keep[s] - delta) * scale : A(0);
        p[s] = probability * keep[s];
      }
    } else {
#pragma omp simd
      for (int64_t s = 0; s < width; ++s) {
        p[s] = vec::exp(p[s]);
        ds[s] = s < seen ? p[s] * (ds[s] - delta) * scale : A(0);
      }
    }
  }

  void store_dq(int64_t b, int64_t head, int64_t begin, int64_t rows, int64_t key,
                const Buffers<A>& w) const {
    const int64_t dim = t_.dim;
    const int64_t token = b * t_.queries + begin;
    if (wide_dq_ == nullptr) {
      unpack(w.dq, rows, to_.query_row, to_.dq + token * to_.query_row + head * dim);
      return;
    }
    for (int64_t r = 0; r < rows; ++r) {
      A* to = wide_dq_ + (token + r) * wide_row_ + head * dim;
      const A* from = w.dq + r * t_.padded_dim;
#pragma omp simd
      for (int64_t i = 0; i < dim; ++i) {
        to[i] = key == 0 ? from[i] : to[i] + from[i];
      }
    }
  }

  const AttentionTiles& t_;
  const Masks& masks_;
  const T* q_;
  const T* k_;
  const T* v_;
  const T* out_;
  const A* lse_;
  const T* dout_;
  AttentionGradients<T> to_;
  A* wide_dq_;
  int64_t wide_row_;
  A* row_sums_;
  A scale_;
};

}  // namespace

void attention_grad_cpu(const KernelArgs& args) {
  const auto attrs = args.attr<AttentionGradAttrs>();
  dispatch_floating(args.in[0].dtype, args.op, [&]<typename T>() {
    using A = acc_t<T>;
    const AttentionTiles tiles(args.in[0].shape, args.in[1].shape, tile::kLanes<A>);
    const Masks masks(args, tiles, attrs.forward, 6, 7);
    A* workspace = static_cast<A*>(args.workspace);
    const AttentionGradients<T> to(args);
    A* wide_dq = nullptr;
    int64_t wide_row = tiles.heads * tiles.dim;
    if (attrs.dq && tiles.key_tiles > 1) {
      if constexpr (std::is_same_v<T, A>) {
        wide_dq = to.dq;
        wide_row = to.query_row;
      } else {
        wide_dq = workspace;
        workspace += tiles.wide_dq_elements();
      }
    }
    if (attrs.dq && tiles.keys == 0) {  // packed, there are no queries either
      std::fill_n(to.dq, args.out[0].numel(), T(0.0f));
    }
    A* row_sums = nullptr;
    if (args.in[3].data == nullptr) {
      row_sums = workspace;
      workspace += tiles.row_sum_elements();
    }
    const Backward<T> backward(args, tiles, masks, wide_dq, wide_row, row_sums);
    const int64_t tasks = tiles.batch * tiles.kv_heads;
    const int64_t each = tiles.backward_elements();
    // A task owns its key head's dk and dv and its query heads' dq, so who runs it does not matter.
#pragma omp parallel for schedule(dynamic) if (tasks > 1)
    for (int64_t task = 0; task < tasks; ++task) {
      const Buffers<A> buffers(tiles, workspace + omp_get_thread_num() * each);
      backward.run(task / tiles.kv_heads, task % tiles.kv_heads, buffers);
    }
    if constexpr (!std::is_same_v<T, A>) {
      if (wide_dq != nullptr) {
        parallel_for(tiles.batch * tiles.queries, wide_row, [=](int64_t begin, int64_t end) {
          for (int64_t token = begin; token < end; ++token) {
            const A* from = wide_dq + token * wide_row;
            T* row = to.dq + token * to.query_row;
            for (int64_t i = 0; i < wide_row; ++i) {
              row[i] = T(from[i]);
            }
          }
        });
      }
    }
  });
  if (attrs.bias_sums) {
    sum_rows(args, args.out[0], args.out[0].shape.product(0, 2), args.out.subspan(1));
  }
}

}  // namespace lithe
