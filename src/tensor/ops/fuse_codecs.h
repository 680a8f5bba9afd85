// Codes of saved activations made by the op that produces or last reads the value, and read by the
// op that computes its gradient: rewrite rules behind the codec pass. Codes keep their bits.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

// On the graph of forward and backward, after the codec pass:
//   linear with an activation, and codes of its pre-activation or output
//       -> linear, activation_codes (y takes the place of the pre-activation)
//   activation, and codes of x or y          -> activation_codes
//   activation_grad of codes                 -> activation_codes_grad
//   residual_norm, and codes of its sum      -> residual_norm_codes, with its sum where it is read
//   residual_norm_grad or layer_norm_dx of such codes
//       -> residual_norm_codes_grad
//   attention_grad of int8 codes of q, k and v, where the device's kernel takes them
//       -> attention_codes_grad
// The CPU's kernels of attention decode ahead, and would only hold on to the codes for longer.
// `gradients` are followed to where they are then. Returns how many nodes were replaced by fused
// ones.
int fuse_codecs(Graph& graph, std::span<ParameterGradient> gradients = {},
                DeviceKind device = DeviceKind::cuda);

}  // namespace lithe
