// Table lookup: table [V, H], ids int64 [...] -> [..., H]. The gradient adds rows in a fixed order.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

// Ids outside [0, V) are an error on the CPU (ShapeError naming the id and V).
ValueId embedding(Graph& graph, ValueId table, ValueId ids);

extern const OpDef embedding_op;
// dtable [V, H] from (dy [..., H], ids); attributes: EmbeddingAttrs.
extern const OpDef embedding_grad_op;

struct EmbeddingAttrs {
  int64_t vocabulary = 0;  // V
};

void embedding_cpu(const KernelArgs& args);
void embedding_grad_cpu(const KernelArgs& args);

}  // namespace lithe
