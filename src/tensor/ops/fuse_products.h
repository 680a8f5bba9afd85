// Products whose results are activated and coded before they reach memory: a rewrite for CUDA.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

// On the graph of forward and backward, after fuse_codecs, where nobody else reads the product and
// the kernel has work enough:
//   activation_codes of a linear layer's output  -> linear_activation_codes
//   activation_codes_grad of a product dy W      -> matmul_activation_codes_grad
// `gradients` are followed to where they are then. Returns how many were fused.
int fuse_products(Graph& graph, std::span<ParameterGradient> gradients = {});

}  // namespace lithe
