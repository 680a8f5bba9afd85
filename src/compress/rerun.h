// A forward value computed again where backward reads it: its producer, or what follows from it,
// runs once more on operands that are there anyway. Bit-equal to the value itself.
#pragma once

#include <functional>
#include <string>

#include "tensor/graph/graph.h"

namespace lithe {

struct Rerun {
  enum class Way : uint8_t {
    none,
    producer,    // the same node once more
    activation,  // of the pre-activation that a linear layer with an activation leaves
    norm,        // layer norm of the sum that a residual norm leaves
  };
  Way way = Way::none;
  std::string refusal;  // why there is no way
};

// How v, made by a forward node, can be computed again from leaves and from values that are `kept`
// for backward. Products are not: their time is what a step consists of.
Rerun find_rerun(const Graph& graph, ValueId v, const std::function<bool(ValueId)>& kept);

// v once more, at the cursor.
ValueId emit_rerun(Graph& graph, ValueId v, Rerun::Way way);

// The outputs of residual norm `n` but for its sum, from that sum: layer_norm's (y, mean, rstd).
NodeId emit_norm_of_sum(Graph& graph, NodeId n);

}  // namespace lithe
