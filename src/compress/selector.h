// How recipes name places in a model: glob patterns over dotted paths, and ranges of blocks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nn/model.h"
#include "tensor/core/glob.h"

namespace lithe {

// Block indices of "0-8", "0-2,5", "all" or "last 2"; throws UsageError("key", ...) for what is
// malformed or outside of [0, count).
std::vector<int> parse_blocks(std::string_view text, int count, std::string_view key);

// A parameter with the path that selectors match: its full dotted name.
struct NamedParameter {
  std::string name;
  SlotId slot = kNoSlot;
  int block = -1;
  nn::FileLayout layout = nn::FileLayout::same;
};
std::vector<NamedParameter> all_parameters(const nn::Module& model);

// The name nearest to a pattern that matched nothing, for the error.
std::string nearest_name(std::string_view pattern, const std::vector<NamedParameter>& parameters);

}  // namespace lithe
