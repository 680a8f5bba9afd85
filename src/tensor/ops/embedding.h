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

struct EmbeddingAttrs {
  int64_t vocabulary = 0;        // V; used by the gradient
  int64_t padding = kNoPadding;  // a row of zeros in the gradient
};

void embedding_cpu(const KernelArgs& args);
void embedding_grad_cpu(const KernelArgs& args);

}  // namespace lithe
