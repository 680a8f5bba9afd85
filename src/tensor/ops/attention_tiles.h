// How the CPU's attention is cut into tiles; the planner asks for the workspace that follows from
// it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tensor/core/shape.h"
#include "tensor/ops/tile_gemm.h"

namespace lithe {

// q [B, T, N, D]; k, v [B, S, K, D]. A tile of keys is packed once and met by all queries of a
// task; scores exist for one block of queries at a time.
struct AttentionTiles {
  static constexpr int64_t kMaxKeys = 256;
  static constexpr int64_t kMaxQueries = 240;
  static constexpr int64_t kMaxBlock = 60;  // a multiple of tile::kRows

  AttentionTiles(const Shape& q, const Shape& k, int64_t lanes)
      : batch(q[0]), queries(q[1]), heads(q[2]), dim(q[3]), keys(k[1]), kv_heads(k[2]) {
    group = heads / kv_heads;
    padded_dim = ceil_div(dim, lanes) * lanes;
    key_tiles = std::max<int64_t>(ceil_div(keys, kMaxKeys), 1);
    tile_keys = ceil_div(ceil_div(keys, key_tiles), lanes) * lanes;
    query_tiles = ceil_div(queries, kMaxQueries);
    tile_queries = query_tiles == 0 ? 0 : even_part(queries, query_tiles);
    block_queries =
        tile_queries == 0 ? 0 : even_part(tile_queries, ceil_div(tile_queries, kMaxBlock));
  }

  // Elements of workspace one thread needs.
  int64_t forward_elements() const {
    return tile_keys * (dim + padded_dim + block_queries + 2)  // Kᵀ, V, scores, mask, dropout
           + block_queries * padded_dim                        // widened queries
           + tile_queries * (padded_dim + 2);                  // sums, maximum, denominator
  }
  int64_t backward_elements() const {
    return tile_keys * (2 * dim + 3 * padded_dim)   // Kᵀ, Vᵀ, K, dK, dV
           + tile_keys * (2 * block_queries + 2)    // P, dP, mask, dropout
           + block_queries * (3 * padded_dim + 1);  // queries, dO, dQ, their dots
  }
  // 16-bit dq is summed over the tiles of keys in fp32.
  int64_t wide_dq_elements() const { return key_tiles > 1 ? batch * queries * heads * dim : 0; }
  // The sums from which backward derives delta where it has no output: [B, N, T, 2].
  int64_t row_sum_elements() const { return batch * heads * queries * 2; }

  int64_t batch, queries, heads, dim, keys, kv_heads;
  int64_t group = 1;  // query heads that share a key head
  int64_t padded_dim = 0;
  int64_t key_tiles = 1, tile_keys = 0;
  int64_t query_tiles = 0, tile_queries = 0, block_queries = 0;

 private:
  static int64_t ceil_div(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
  static int64_t even_part(int64_t n, int64_t parts) {
    const int64_t part = ceil_div(n, parts);
    return std::min(n, ceil_div(part, tile::kRows) * tile::kRows);
  }
};

}  // namespace lithe
