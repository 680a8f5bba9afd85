// What cases of ops with codes share: formats and their names, a node's outputs.
#pragma once

#include <string>
#include <vector>

#include "registry/registry.h"
#include "tensor/ops/saved_code.h"

namespace lithe::registry {

using Values = std::span<const ValueId>;
using Outputs = std::vector<ValueId>;

struct Format {
  SavedCode code;
  std::string name;
};

inline SavedCode fixed(const FixedPointAttrs& attrs) {
  return {.kind = SavedCode::Kind::fixed_point, .fixed = attrs};
}
inline SavedCode quantized(int bits, int group, DType scale) {
  return {.kind = SavedCode::Kind::quantized,
          .bits = static_cast<int8_t>(bits),
          .scale = scale,
          .group = group};
}

inline Outputs outputs_of(const Graph& g, NodeId n) {
  const auto out = g.outputs(n);
  return {out.begin(), out.end()};
}

}  // namespace lithe::registry
