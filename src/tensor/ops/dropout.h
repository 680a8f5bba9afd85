// Dropout that stores nothing: the mask is a pure function of (seed, step, key, element).
#pragma once

#include "tensor/core/philox.h"
#include "tensor/graph/gradient.h"

namespace lithe {

struct DropoutAttrs {
  double p = 0;      // probability of zero, in [0, 1)
  uint64_t key = 0;  // the site's own number, for example a hash of its module path
};

// y = x * keep / (1 - p). `rng` is an int64 [2] input: (seed, step). p == 0 returns x itself.
ValueId dropout(Graph& graph, ValueId x, ValueId rng, const DropoutAttrs& attrs);

extern const OpDef dropout_op;

void dropout_cpu(const KernelArgs& args);

// Whether element i is kept: word i % 4 of block i / 4, compared with p on 32 bits.
LITHE_HOST_DEVICE inline bool dropout_keep(uint64_t seed, uint64_t step, uint64_t key, uint64_t i,
                                           uint32_t threshold) {
  return philox(seed, mix(key, step), i / 4).word[i % 4] >= threshold;
}
// p as a threshold on 32-bit words.
LITHE_HOST_DEVICE inline uint32_t dropout_threshold(double p) {
  return static_cast<uint32_t>(p * 4294967296.0);
}

}  // namespace lithe
