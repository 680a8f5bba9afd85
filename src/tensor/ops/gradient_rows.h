// Gradients of embedding tables as rows: a rewrite rule between backward and the updates.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

// Where a batch looks up fewer rows than its table has, and only updates will read the gradient:
// embedding_grad -> embedding_grad_rows, with the map as ParameterGradient::rows. Updates and sums
// of squares take both and give the same bits. Returns how many gradients were replaced.
int use_gradient_rows(Graph& graph, std::span<ParameterGradient> gradients);

}  // namespace lithe
