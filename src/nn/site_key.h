// Dropout sites of the models. A site's key depends on its place in the module tree only, so masks
// stay the same whatever else a graph holds.
#pragma once

#include "nn/module.h"
#include "tensor/core/name_hash.h"
#include "tensor/ops/dropout.h"

namespace lithe::nn {

// The index-th site of a module.
inline uint64_t site_key(const Module& module, uint64_t index) {
  return mix(name_hash(module.path()), index);
}

// x itself without rng (dropout is off) or with p == 0.
inline ValueId site_dropout(Graph& graph, ValueId x, ValueId rng, double p, const Module& module,
                            uint64_t index) {
  return rng == kNoValue ? x : dropout(graph, x, rng, {p, site_key(module, index)});
}

// The graph's input "rng", which is there where dropout is on; else kNoValue.
inline ValueId random_input(const Graph& graph) {
  for (ValueId v : graph.leaves()) {
    if (graph.value(v).is_input && graph.name(v) == "rng") {
      return v;
    }
  }
  return kNoValue;
}

}  // namespace lithe::nn
