// Where attention drops: its probabilities, as BERT does, or its values, as SlimFit's code does
// (arXiv 2305.18513), which takes a mask of T D an image of a head instead of T S.
#pragma once

#include "tensor/graph/graph.h"

namespace lithe {

// attention(q, k, v) with dropout on the probabilities -> attention(q, k, dropout(v)) without, with
// the same probability and key. On the forward graph, before gradients are built. Returns how many
// were rewritten.
int drop_attention_values(Graph& graph);

}  // namespace lithe
