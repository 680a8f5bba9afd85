// The verifier, run after every pass: a graph that it accepts can be planned and executed.
#pragma once

#include <string_view>

#include "tensor/graph/graph.h"

namespace lithe {

// Checks that operands are defined before they are read, shapes and dtypes are what the ops infer,
// slots are overwritten at most once and never read afterwards, only trainable parameters and
// states are overwritten, and input names are unique. Throws GraphError naming `after` (the pass
// that ran), the node and both shapes.
void verify(const Graph& graph, std::string_view after);

}  // namespace lithe
