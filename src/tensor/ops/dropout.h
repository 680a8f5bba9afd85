// Dropout that stores nothing: the mask is a pure function of (seed, step, key, element).
#pragma once

#include "tensor/core/philox.h"
#include "tensor/graph/gradient.h"

namespace lithe {

struct DropoutAttrs {
  double p = 0;      // probability of zero, in [0, 1)
  uint64_t key = 0;  // the site's own number, for example a hash of its module path
};

// y = x * keep * dropout_scale(p). `rng` is an int64 [2] input: (seed, step). p == 0 returns x
// itself.
ValueId dropout(Graph& graph, ValueId x, ValueId rng, const DropoutAttrs& attrs);

extern const OpDef dropout_op;

void dropout_cpu(const KernelArgs& args);

// Masks take 16 bits an element from blocks of seven rounds: eight elements share a block, so that
// drawing them stays cheap beside a tensor-core product.
inline constexpr int kDropoutRounds = 7;
inline constexpr int kDropoutLanes = 8;  // elements of a block

// p as a threshold on 16 bits, and what kept elements are scaled by: the inverse of the probability
// that the threshold stands for, so that the mean stays exact.
LITHE_HOST_DEVICE inline uint32_t dropout_threshold(double p) {
  return static_cast<uint32_t>(p * 65536.0 + 0.5);
}
LITHE_HOST_DEVICE inline double dropout_scale(double p) {
  const uint32_t threshold = dropout_threshold(p);
  return threshold >= 65536 ? 0.0 : 65536.0 / static_cast<double>(65536 - threshold);
}
// The blocks of a site in one step.
LITHE_HOST_DEVICE inline PhiloxBlock dropout_block(uint64_t seed, uint64_t stream, uint64_t block) {
  return philox<kDropoutRounds>(seed, stream, block);
}
LITHE_HOST_DEVICE inline uint32_t dropout_lane(const PhiloxBlock& block, int lane) {
  return (block.word[lane / 2] >> (16 * (lane % 2))) & 0xffffu;
}
// Whether element i is kept: lane i % 8 of block i / 8, with stream = mix(key, step).
LITHE_HOST_DEVICE inline bool dropout_keep(uint64_t seed, uint64_t step, uint64_t key, uint64_t i,
                                           uint32_t threshold) {
  const PhiloxBlock block = dropout_block(seed, mix(key, step), i / kDropoutLanes);
  return dropout_lane(block, static_cast<int>(i % kDropoutLanes)) >= threshold;
}

}  // namespace lithe
