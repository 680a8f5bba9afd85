// Table lookup: table [V, H], ids int64 [...] -> [..., H]. The gradient adds rows in a fixed order.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

inline constexpr int64_t kNoPadding = -1;

// Ids outside [0, V) are an error on the CPU (ShapeError naming the id and V). The row `padding`
// gets no gradient, as PyTorch's padding_idx.
ValueId embedding(Graph& graph, ValueId table, ValueId ids, int64_t padding = kNoPadding);

// Attributes of both: EmbeddingAttrs. The gradient is dtable [V, H] from (dy [..., H], ids).
extern const OpDef embedding_op, embedding_grad_op;
// The same gradient without its zeros, of the same operands: (rows [n, H], map int32 [V]) for n
// ids. Row v of the table has row map[v], which is how many of the ids, padding left out, are below
// v; -1: none looked it up. All other rows are zeros.
extern const OpDef embedding_grad_rows_op;

struct EmbeddingAttrs {
  int64_t vocabulary = 0;        // V; used by the gradient
  int64_t padding = kNoPadding;  // a row of zeros in the gradient
};

// The gradient's scratch on CUDA, in bytes from its start. Positions are sorted by id, stably: the
// rank of a position among those of its id follows from counts in tiles of positions. Then runs of
// kRunTile sorted positions are summed at a time; a row that lies in several of them is joined from
// its partial sums. All integers are 32 bits wide.
struct EmbeddingScratch {
  static constexpr int64_t kRankTile = 1024;  // positions, at least
  static constexpr int64_t kMostTiles = 64;   // so that the counts stay small beside the gradient
  static constexpr int64_t kRunTile = 32;

  int64_t tile = kRankTile;  // positions
  int64_t tiles = 0;
  int64_t totals = 0;    // [V], by id; zeroed together with counts
  int64_t counts = 0;    // [tiles, V]; later where a tile's positions of an id go
  int64_t bases = 0;     // [V + 1]: the first sorted position of an id
  int64_t ranks = 0;     // [n]: of a position, in its tile
  int64_t order = 0;     // [n]: position, sorted
  int64_t rows = 0;      // [n]: id, sorted
  int64_t partials = 0;  // [runs, 2, H] in the accumulation type: of a run's first and last row
  int64_t bytes = 0;
};
// Of ids [n] and a table [vocabulary, hidden].
EmbeddingScratch embedding_scratch(int64_t n, int64_t vocabulary, int64_t hidden, DType dtype);

void embedding_cpu(const KernelArgs& args);
void embedding_grad_cpu(const KernelArgs& args);
void embedding_grad_rows_cpu(const KernelArgs& args);

}  // namespace lithe
