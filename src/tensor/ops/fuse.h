// Rewrite rules that put chains of ops into one fused op. Each is a plain function on a step graph,
// which computes the same afterwards, apart from the roundings between the parts.
#pragma once

#include "tensor/graph/graph.h"

namespace lithe {

// layer_norm(dropout(y) + residual) -> residual_norm, on the forward graph, before gradients are
// built: the fused op brings its own. Returns how many were rewritten.
int fuse_residual_norms(Graph& graph);

// Linear layers that read one value, such as query, key and value or gate and up -> linear_stack,
// on the forward graph, before gradients are built. Returns how many stacks were made.
int fuse_parallel_linears(Graph& graph);

// a b + c -> one product that adds to c, wherever nobody else reads a b: the sums of a value's
// gradients. The product is a matmul or a linear_packed_dx. After gradients are built. Returns how
// many were rewritten.
int fuse_sums(Graph& graph);

}  // namespace lithe
