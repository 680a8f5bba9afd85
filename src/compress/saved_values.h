// What a step's backward keeps of its forward: each forward value that backward reads, through
// views or directly, who reads it, and what it is to them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tensor/graph/graph.h"

namespace lithe {

// Roles are bits: one value may be several things, as the output of attention is the next layer's
// input too.
namespace saved_role {

inline constexpr uint32_t kNormInput = 1u << 0;        // x of a normalisation
inline constexpr uint32_t kFrozenNormInput = 1u << 1;  // the same where its scale is not trained
// x of GELU and its kin, whose gradients read x and not y.
inline constexpr uint32_t kGeluInput = 1u << 2;
// Operands of attention, fused or not.
inline constexpr uint32_t kQuery = 1u << 3;
inline constexpr uint32_t kKey = 1u << 4;
inline constexpr uint32_t kValue = 1u << 5;
inline constexpr uint32_t kAttentionOutput = 1u << 6;  // of fused attention: its gradient reads it
inline constexpr uint32_t kProbabilities = 1u << 7;    // of unfused attention
inline constexpr uint32_t kDroppedProbabilities = 1u << 8;  // the same after dropout
inline constexpr uint32_t kLinearInput = 1u << 9;  // x of a linear layer whose weight is trained
inline constexpr uint32_t kActivationOutput = 1u << 10;  // the same where an activation made it
inline constexpr uint32_t kStatistics = 1u << 11;        // a number a row: means, log-sum-exps
inline constexpr uint32_t kNormStatistics = 1u << 12;    // those of a norm
inline constexpr uint32_t kDropoutMask = 1u << 13;       // where it is stored (codec_masks.h)
// Of a frozen norm's input too: what may be kept in normalised form instead (codec_norms.h).
inline constexpr uint32_t kFrozenNormOutput = 1u << 14;

}  // namespace saved_role

struct SavedRoleName {
  std::string_view name;
  uint32_t roles;
};
// As recipes write them; "attention" is query, key and value, "any" all that is no statistics.
std::span<const SavedRoleName> saved_role_names();

struct SavedReader {
  NodeId node = kNoNode;
  int input = 0;
};

struct SavedValue {
  ValueId value = kNoValue;  // made by a forward node, and no view
  uint32_t roles = 0;
  std::vector<SavedReader> readers;  // of it or a view of it, in the order of the graph
};

// In the order in which they are made. Leaves are none, nor are copies of weights.
std::vector<SavedValue> saved_values(const Graph& graph);

// The value whose memory v shows.
ValueId viewed(const Graph& graph, ValueId v);

}  // namespace lithe
