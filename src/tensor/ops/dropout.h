// Dropout that stores nothing: the mask is a pure function of (seed, step, key, element).
#pragma once

#include <cmath>

#include "tensor/core/philox.h"
#include "tensor/graph/gradient.h"

namespace lithe {

struct DropoutAttrs {
  double p = 0;      // probability of zero, in [0, 1)
  uint64_t key = 0;  // the site's own number, for example a hash of its module path
  // Random bits an element takes. 16: element i is lane i % 8 of block i / 8. 8, for attention's
  // probabilities: each row (the last dimension, of size S) has blocks of its own, and element s of
  // row r is lane s % 16 of block r * ceil(S / 16) + s / 16.
  int64_t bits = 16;
};

// y = x * keep * dropout_scale(p). `rng` is an int64 [2] input: (seed, step). p == 0 returns x
// itself.
ValueId dropout(Graph& graph, ValueId x, ValueId rng, const DropoutAttrs& attrs);

extern const OpDef dropout_op;

void dropout_cpu(const KernelArgs& args);

// Masks take 16 or 8 bits an element from blocks of seven rounds: eight or sixteen elements share a
// block, so that drawing them stays cheap beside a tensor-core product.
inline constexpr int kDropoutRounds = 7;
template <int kBits>
inline constexpr int kLanesOfBlock = 128 / kBits;        // elements of a block
inline constexpr int kDropoutLanes = kLanesOfBlock<16>;  // of most ops
inline constexpr int kAttentionDropoutBits = 8;          // of attention's probabilities
inline constexpr int kProbabilityLanes = kLanesOfBlock<kAttentionDropoutBits>;

// Blocks of one row of probabilities.
LITHE_HOST_DEVICE inline int64_t probability_blocks(int64_t keys) {
  return (keys + kProbabilityLanes - 1) / kProbabilityLanes;
}

// p as a threshold on `bits` bits, at least 1 for p > 0, and what kept elements are scaled by: the
// inverse of the probability that the threshold stands for, so that the mean stays exact.
LITHE_HOST_DEVICE inline uint32_t dropout_threshold(double p, int64_t bits = 16) {
  const auto nearest = static_cast<uint32_t>(lround(p * static_cast<double>(1u << bits)));
  return p > 0 && nearest == 0 ? 1 : nearest;
}
LITHE_HOST_DEVICE inline double dropout_scale(double p, int64_t bits = 16) {
  const uint32_t all = 1u << bits;
  const uint32_t threshold = dropout_threshold(p, bits);
  return threshold >= all ? 0.0 : static_cast<double>(all) / static_cast<double>(all - threshold);
}
// The blocks of a site in one step.
LITHE_HOST_DEVICE inline PhiloxBlock dropout_block(uint64_t seed, uint64_t stream, uint64_t block) {
  return philox<kDropoutRounds>(seed, stream, block);
}
template <int kBits = 16>
LITHE_HOST_DEVICE inline uint32_t dropout_lane(const PhiloxBlock& block, int lane) {
  constexpr int kOfWord = 32 / kBits;
  return (block.word[lane / kOfWord] >> (kBits * (lane % kOfWord))) & ((1u << kBits) - 1);
}
// Whether element i of a site of 16 bits is kept, with stream = mix(key, step).
LITHE_HOST_DEVICE inline bool dropout_keep(uint64_t seed, uint64_t step, uint64_t key, uint64_t i,
                                           uint32_t threshold) {
  const PhiloxBlock block = dropout_block(seed, mix(key, step), i / kDropoutLanes);
  return dropout_lane(block, static_cast<int>(i % kDropoutLanes)) >= threshold;
}
// The same of element s, of `width`, in a row of a site of 8 bits.
LITHE_HOST_DEVICE inline bool dropout_keep_in_row(uint64_t seed, uint64_t step, uint64_t key,
                                                  int64_t row, int64_t width, int64_t s,
                                                  uint32_t threshold) {
  const int64_t block = row * probability_blocks(width) + s / kProbabilityLanes;
  return dropout_lane<kAttentionDropoutBits>(
             dropout_block(seed, mix(key, step), static_cast<uint64_t>(block)),
             static_cast<int>(s % kProbabilityLanes)) >= threshold;
}

}  // namespace lithe
