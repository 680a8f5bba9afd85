// Attention's backward pass on tensor cores: a block holds some keys of one head, 16 a warp, and
// walks over tiles of queries; dk and dv stay in registers, dq adds up over the blocks of keys in a
// fixed order. Probabilities come back from the log-sum-exp. Device-only.
#pragma once

#include "tensor/ops/attention_cuda.h"

namespace lithe::attention_cuda_kernels {

// Rows: PlainRows or CodedRows.
template <typename Rows>
struct BackwardParams {
  using T = typename Rows::T;
  Geometry geometry;
  Rows q{};
  Rows k{};
  Rows v{};
  const T* dout = nullptr;
  AttentionGradients<T> to{};
  const float2* statistics = nullptr;  // [B, N, query_blocks * queries of a tile]
  float4* slots = nullptr;             // dq's sums, see BackwardSplit
  int query_blocks = 0, key_blocks = 0;
  int parts = 1;
  int tasks = 0;
};

// dq of one tile of queries as the sums of each thread: kPairs tiles of [16, 16] a warp.
template <typename Product, int kDim>
struct QueryGradientTile {
  using T = typename Product::Element;
  static constexpr auto kBlock = attention_blocks::backward_block(sizeof(T), kDim);
  static constexpr int kThreads = kBlock.threads();
  static constexpr int kRowTiles = kBlock.queries / 16;
  static constexpr int kColumns = kBlock.warps / kRowTiles;  // warps side by side
  static constexpr int kPairs = attention_blocks::dq_pairs(kBlock, kDim);
  static constexpr int kVectors = kPairs * 2 * kThreads;  // float4s of a tile in a slot

  using Sums = float[2 * kPairs][4];

  __device__ static int row_tile() { return static_cast<int>(threadIdx.x / 32) % kRowTiles; }
  // The first of the 16 columns of this warp's pair; beyond kDim where it has one pair less.
  __device__ static int column(int pair) {
    return (static_cast<int>(threadIdx.x / 32) / kRowTiles + pair * kColumns) * 16;
  }

  __device__ static void load(Sums& sums, const float4* slot) {
#pragma unroll
    for (int i = 0; i < 2 * kPairs; ++i) {
      const float4 x = slot[i * kThreads + threadIdx.x];
      sums[i][0] = x.x;
      sums[i][1] = x.y;
      sums[i][2] = x.z;
      sums[i][3] = x.w;
    }
  }
  __device__ static void store(const Sums& sums, float4* slot) {
#pragma unroll
    for (int i = 0; i < 2 * kPairs; ++i) {
      slot[i * kThreads + threadIdx.x] =
          make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
    }
  }
  // To dq, whose first of `rows` rows is at `to`.
  __device__ static void write(const Sums& sums, T* to, int64_t stride, int rows, int dim,
                               float scale) {
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int i = 0; i < 2 * kPairs; ++i) {
      const int at = column(i / 2) + i % 2 * 8 + lane % 4 * 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = row_tile() * 16 + half * 8 + lane / 4;
        if (row < rows && at < dim) {
          Product::store_pair(to + row * stride + at, sums[i][2 * half] * scale,
                              sums[i][2 * half + 1] * scale);
        }
      }
    }
  }
};

// Calls with kKeyGradient give dk and dq, those with kValueGradient dv.
template <typename Product, int kDim_, bool kKeyGradient, bool kValueGradient, typename Rows_>
struct BackwardKernel {
  using Rows = Rows_;
  using T = typename Product::Element;
  static constexpr int kDim = kDim_;
  static constexpr auto kBlock = attention_blocks::backward_block(sizeof(T), kDim);
  static constexpr int kThreads = kBlock.threads();
  static constexpr int kKeys = kBlock.keys();
  static constexpr int kQueries = kBlock.queries;
  static constexpr int kDepth = Product::kDepth;
  static constexpr int kLd = padded_row<T>(kDim);
  static constexpr int kLdGradients = padded_row<T>(kQueries);
  static constexpr bool kKeepsKeys = sizeof(T) == 2 && kDim <= 64;  // and values, in registers
  // Two stages of queries, output gradients and statistics; keys; values; score gradients
  // [keys, queries].
  static constexpr int kStage = 2 * kQueries * kLd;
  static constexpr size_t kSharedBytes =
      (2 * kStage + 2 * kKeys * kLd + kKeys * kLdGradients) * sizeof(T) +
      2 * kQueries * sizeof(float2);

  using QueryGradient = QueryGradientTile<Product, kDim>;
  using Operand = typename Product::A[kDim / kDepth];
  using Scores = float[kQueries / 8][4];
  using Sums = float[kDim / 8][4];

  const BackwardParams<Rows>& p;
  const Geometry& geo = p.geometry;
  int64_t b = 0;
  int kv_head = 0;
  int first_key = 0;      // of the block
  uint32_t active = 0;    // bit w: some key of warp w may be visible
  bool own_sees[2] = {};  // the lane's keys, of rows `group` and group + 8

  __device__ static int warp() { return static_cast<int>(threadIdx.x / 32); }
  __device__ static int lane() { return static_cast<int>(threadIdx.x % 32); }
  __device__ static int key_row(int half) { return warp() * 16 + half * 8 + lane() / 4; }

  __device__ static T* stage(int i) { return reinterpret_cast<T*>(shared_memory) + i % 2 * kStage; }
  __device__ static T* keys() { return reinterpret_cast<T*>(shared_memory) + 2 * kStage; }
  __device__ static T* values() { return keys() + kKeys * kLd; }
  __device__ static T* gradients() { return values() + kKeys * kLd; }
  __device__ static float2* statistics(int i) {
    return reinterpret_cast<float2*>(gradients() + kKeys * kLdGradients) + i % 2 * kQueries;
  }

  // Queries of one head that meet the block's keys.
  struct Step {
    int head;
    int query_block;
  };
  __device__ Step after(const Step& step, int first_block) const {
    return step.query_block + 1 < p.query_blocks ? Step{step.head, step.query_block + 1}
                                                 : Step{step.head + 1, first_block};
  }
  // The first block of keys takes all queries, so that dq is written where nothing is visible.
  __device__ int first_query_block(int key_block) const {
    const int first = first_key - (geo.keys - geo.queries);
    return geo.causal && key_block > 0 && first > 0 ? first / kQueries : 0;
  }
  // The last block of keys that a block of queries meets.
  __device__ static int last_key_block(const Geometry& geo, int key_blocks, int query_block) {
    const int last = min((query_block + 1) * kQueries, geo.queries) - 1;
    const int visible = (geo.visible(last) + kKeys - 1) / kKeys;
    return visible == 0 ? 0 : min(visible, key_blocks) - 1;
  }

  __device__ void copy_queries(const Step& step, int i) const {
    const int first = step.query_block * kQueries;
    const int64_t at = geo.query_at(b, first, step.head);
    const int64_t stride = int64_t{geo.heads} * geo.dim;
    const int rows = geo.queries - first;
    p.q.template copy<kQueries, kDim, kThreads>(stage(i), at, stride, rows, geo.dim);
    copy_tile<kQueries, kDim, kThreads>(stage(i) + kQueries * kLd, p.dout + at, stride, rows,
                                        geo.dim);
    constexpr int kChunk = 16 / sizeof(float2);
    if (static_cast<int>(threadIdx.x) < kQueries / kChunk) {
      const int64_t from =
          ((b * geo.heads + step.head) * p.query_blocks + step.query_block) * kQueries;
      device::copy_async(statistics(i) + threadIdx.x * kChunk,
                         p.statistics + from + threadIdx.x * kChunk, true);
    }
  }

  __device__ void decode_queries(const Step& step, int i) const {
    p.q.template decode<kQueries, kDim, kThreads>(
        stage(i), geo.query_at(b, step.query_block * kQueries, step.head),
        int64_t{geo.heads} * geo.dim);
  }

  // Which keys of the block are visible to any query.
  __device__ void look() {
    constexpr int kWords = (kKeys + 31) / 32;
    active = 0;
    own_sees[0] = own_sees[1] = false;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const uint32_t seen =
          __ballot_sync(0xffffffffu, geo.sees(b, first_key + 32 * w + lane()) != 0);
      active |= ((seen & 0xffffu) != 0 ? 1u : 0u) << (2 * w);
      active |= ((seen >> 16) != 0 ? 1u : 0u) << (2 * w + 1);
      if (warp() / 2 == w) {
        const uint32_t own = seen >> (warp() % 2 * 16 + lane() / 4);
        own_sees[0] = (own & 1u) != 0;
        own_sees[1] = (own >> 8 & 1u) != 0;
      }
    }
  }

  // scores [16 keys, queries] = left of the warp's keys, right of the queries.
  __device__ void multiply(Scores& scores, const Operand& kept, const T* left,
                           const T* right) const {
#pragma unroll
    for (int step = 0; step < kDim / kDepth; ++step) {
      typename Product::A a;
      if constexpr (kKeepsKeys) {
        a = kept[step];
      } else {
        a = Product::load_a(left + step * kDepth, kLd);
      }
#pragma unroll
      for (int pair = 0; pair < kQueries / 16; ++pair) {
        typename Product::B query[2];
        Product::load_b(query, right + pair * 16 * kLd + step * kDepth, kLd);
        Product::multiply(scores[2 * pair], a, query[0]);
        Product::multiply(scores[2 * pair + 1], a, query[1]);
      }
    }
  }

  // sums [16 keys, dim] += weights [16 keys, queries] of rows [queries, dim].
  __device__ void add_up(Sums& sums, const Scores& weights, const T* rows) const {
#pragma unroll
    for (int step = 0; step < kQueries / kDepth; ++step) {
      const typename Product::A a = Product::from_sums(weights + step * (kDepth / 8));
#pragma unroll
      for (int pair = 0; pair < kDim / 16; ++pair) {
        typename Product::B row[2];
        Product::load_b_transposed(row, rows + step * kDepth * kLd + pair * 16, kLd);
        Product::multiply(sums[2 * pair], a, row[0]);
        Product::multiply(sums[2 * pair + 1], a, row[1]);
      }
    }
  }

  // Hidden keys get scores of -infinity.
  __device__ void hide(Scores& scores, int first_query) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Queries from here on see the key.
      const int from = geo.causal ? first_key + key_row(half) - (geo.keys - geo.queries) -
                                        first_query - 2 * (lane() % 4)
                                  : -kQueries;
#pragma unroll
      for (int n = 0; n < kQueries / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (!own_sees[half] || n * 8 + i < from) {
            scores[n][2 * half + i] = -INFINITY;
          }
        }
      }
    }
  }

  // Which of the lane's probabilities are kept: bit 4 n + i for tile n, element i.
  __device__ uint32_t draw_bits(const Draw& draw, const Step& step) const {
    const int t = step.query_block * kQueries + drawn_query();
    const auto row_blocks = static_cast<uint64_t>(probability_blocks(geo.keys));
    const uint64_t block = geo.block_at(b, step.head, t, first_key + warp() * 16);
    return swap_for_keys(draw.keeps_blocks(block, block + 8 * row_blocks));
  }

  // From scores and dO Vᵀ in ds: the probabilities (with dropout, unscaled) and the gradient of the
  // scaled scores.
  template <bool kDrops>
  __device__ void differentiate(Scores& scores, Scores& ds, const float2* of_queries,
                                uint32_t bits) const {
    const float scale = static_cast<float>(geo.scale * kLog2E);
    const auto kept_scale = static_cast<float>(geo.dropout.kept_scale);
#pragma unroll
    for (int n = 0; n < kQueries / 8; ++n) {
      const float4 both = *reinterpret_cast<const float4*>(of_queries + n * 8 + 2 * (lane() % 4));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float lse = i % 2 == 0 ? both.x : both.z;
        const float delta = i % 2 == 0 ? both.y : both.w;
        const float probability = device::exp2_fast(scores[n][i] * scale - lse);
        const bool is_kept = !kDrops || (bits >> (4 * n + i) & 1u) != 0;
        scores[n][i] = is_kept ? probability : 0.0f;
        const float dp = kDrops ? ds[n][i] * (is_kept ? kept_scale : 0.0f) : ds[n][i];
        ds[n][i] = probability * (dp - delta);
      }
    }
  }

  __device__ void store_gradients(const Scores& ds) const {
    T* const to = gradients() + key_row(0) * kLdGradients + 2 * (lane() % 4);
#pragma unroll
    for (int n = 0; n < kQueries / 8; ++n) {
      Product::store_pair(to + n * 8, ds[n][0], ds[n][1]);
      Product::store_pair(to + 8 * kLdGradients + n * 8, ds[n][2], ds[n][3]);
    }
  }

  // dq of the tile, of this block's keys: dSᵀ from shared memory.
  __device__ void query_gradient(typename QueryGradient::Sums& sums) const {
    const int steps = (32 - __clz(static_cast<int>(active))) * (16 / kDepth);
    const T* const left = gradients() + QueryGradient::row_tile() * 16;
#pragma unroll 4
    for (int step = 0; step < steps; ++step) {
      const typename Product::A a =
          Product::load_a_transposed(left + step * kDepth * kLdGradients, kLdGradients);
#pragma unroll
      for (int pair = 0; pair < QueryGradient::kPairs; ++pair) {
        const int column = QueryGradient::column(pair);
        if (kDim / 16 % QueryGradient::kColumns == 0 || column < kDim) {
          typename Product::B key[2];
          Product::load_b_transposed(key, keys() + step * kDepth * kLd + column, kLd);
          Product::multiply(sums[2 * pair], a, key[0]);
          Product::multiply(sums[2 * pair + 1], a, key[1]);
        }
      }
    }
  }

  // One block of keys against all queries.
  __device__ void run_block(int key_block, bool is_first, float4* slot, const Draw& draw) {
    first_key = key_block * kKeys;
    const int64_t at = geo.key_at(b, first_key, kv_head);
    const int64_t stride = int64_t{geo.kv_heads} * geo.dim;
    const int first_block = first_query_block(key_block);
    const int steps = geo.group() * (p.query_blocks - first_block);
    const bool wants_dq = kKeyGradient && p.to.dq != nullptr;
    const bool wants_dk = kKeyGradient && p.to.dk != nullptr;
    const bool wants_dv = kValueGradient && p.to.dv != nullptr;
    __syncthreads();  // the block before has been read
    const int key_rows = geo.keys - first_key;
    p.k.template copy<kKeys, kDim, kThreads>(keys(), at, stride, key_rows, geo.dim);
    p.v.template copy<kKeys, kDim, kThreads>(values(), at, stride, key_rows, geo.dim);
    Step next{kv_head * geo.group(), first_block};
    if (steps > 0) {
      copy_queries(next, 0);
    }
    look();
    const bool is_active = (active >> warp() & 1u) != 0;
    if (!is_active && wants_dq) {
      const Scores zeros = {};
      store_gradients(zeros);
    }
    device::copy_async_wait_all();
    p.k.template decode<kKeys, kDim, kThreads>(keys(), at, stride);
    p.v.template decode<kKeys, kDim, kThreads>(values(), at, stride);
    if (steps > 0) {
      decode_queries(next, 0);
    }
    __syncthreads();

    const T* const own_keys = keys() + warp() * 16 * kLd;
    const T* const own_values = values() + warp() * 16 * kLd;
    Operand kept_keys;
    Operand kept_values;
    if constexpr (kKeepsKeys) {
#pragma unroll
      for (int i = 0; i < kDim / kDepth; ++i) {
        kept_keys[i] = Product::load_a(own_keys + i * kDepth, kLd);
        kept_values[i] = Product::load_a(own_values + i * kDepth, kLd);
      }
    }
    Sums dk = {};
    Sums dv = {};
    for (int i = 0; i < steps; ++i) {
      const Step step = next;
      next = after(step, first_block);
      if (i + 1 < steps) {
        copy_queries(next, i + 1);
      }
      float4* const sums_so_far =
          slot + (step.head - kv_head * geo.group()) * p.query_blocks * QueryGradient::kVectors +
          step.query_block * QueryGradient::kVectors;
      typename QueryGradient::Sums before = {};
      if (is_active) {
        const T* const queries = stage(i);
        const T* const dout = queries + kQueries * kLd;
        const int first_query = step.query_block * kQueries;
        Scores scores = {};
        multiply(scores, kept_keys, own_keys, queries);
        const bool all_see = __all_sync(0xffffffffu, own_sees[0] && own_sees[1]) &&
                             geo.visible(first_query) > first_key + warp() * 16 + 15;
        if (!all_see) {
          hide(scores, first_query);
        }
        Scores ds = {};
        if constexpr (kKeyGradient) {
          multiply(ds, kept_values, own_values, dout);
        }
        if (geo.dropout.rng != nullptr) {
          differentiate<true>(scores, ds, statistics(i), draw_bits(draw, step));
        } else {
          differentiate<false>(scores, ds, statistics(i), 0);
        }
        if (wants_dq) {
          store_gradients(ds);
        }
        if (wants_dq && !is_first) {
          QueryGradient::load(before, sums_so_far);  // on its way during the products
        }
        if (wants_dv) {
          add_up(dv, scores, dout);
        }
        if (wants_dk) {
          add_up(dk, ds, queries);
        }
      } else if (wants_dq && !is_first) {
        QueryGradient::load(before, sums_so_far);
      }
      if (wants_dq) {
        __syncthreads();
        typename QueryGradient::Sums sums = {};
        query_gradient(sums);
#pragma unroll
        for (int j = 0; j < 2 * QueryGradient::kPairs; ++j) {
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            sums[j][c] += before[j][c];
          }
        }
        const bool is_last =
            p.parts == 1 && key_block == last_key_block(geo, p.key_blocks, step.query_block);
        if (is_last) {
          const int first = step.query_block * kQueries;
          QueryGradient::write(sums, p.to.dq + geo.query_at(b, first, step.head, p.to.query_row),
                               p.to.query_row, geo.queries - first, geo.dim,
                               static_cast<float>(geo.scale));
        } else {
          QueryGradient::store(sums, sums_so_far);
        }
      }
      device::copy_async_wait_all();
      if (i + 1 < steps) {
        decode_queries(next, i + 1);
      }
      __syncthreads();
    }

    // Through the warp's rows of the tiles, which nobody reads any more.
    const int rows = geo.keys - first_key - warp() * 16;
    const int64_t to = geo.key_at(b, first_key + warp() * 16, kv_head, p.to.key_row);
    if (wants_dk) {
      const auto scale = static_cast<float>(geo.scale);
      sums_to_tile<Product, kDim>(keys() + warp() * 16 * kLd, dk, scale, scale);
    }
    if (wants_dv) {
      const auto kept_scale = static_cast<float>(geo.dropout.kept_scale);
      sums_to_tile<Product, kDim>(values() + warp() * 16 * kLd, dv, kept_scale, kept_scale);
    }
    __syncwarp();
    if (wants_dk) {
      store_tile<16, kDim>(p.to.dk + to, own_keys, p.to.key_row, rows, geo.dim);
    }
    if (wants_dv) {
      store_tile<16, kDim>(p.to.dv + to, own_values, p.to.key_row, rows, geo.dim);
    }
  }

  __device__ void run() {
    const Draw draw(geo.dropout);
    for (int task = static_cast<int>(blockIdx.x); task < p.tasks;
         task += static_cast<int>(gridDim.x)) {
      const int part = task % p.parts;
      kv_head = task / p.parts % geo.kv_heads;
      b = task / p.parts / geo.kv_heads;
      // A slot for each running block, or, where parts are joined later, for each task.
      float4* const slot = p.slots + static_cast<int64_t>(blockIdx.x) * geo.group() *
                                         p.query_blocks * QueryGradient::kVectors;
      const int begin = p.key_blocks * part / p.parts;
      const int end = p.key_blocks * (part + 1) / p.parts;
      for (int key_block = begin; key_block < end; ++key_block) {
        run_block(key_block, key_block == begin, slot, draw);
      }
    }
  }
};

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, 1)
    backward_kernel(const BackwardParams<typename Kernel::Rows> params) {
  Kernel{params}.run();
}

}  // namespace lithe::attention_cuda_kernels
