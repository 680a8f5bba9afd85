// Masks of dropout as saved values. Dropout draws its mask again in backward; where a recipe wants
// it stored, as eager frameworks do, the forward graph says so before gradients are built.
#pragma once

#include <vector>

#include "compress/saved_values.h"

namespace lithe {

// The outputs of forward dropouts, as values of role kDropoutMask without readers.
std::vector<SavedValue> dropout_sites(const Graph& graph);

struct StoredMask {
  ValueId dropped = kNoValue;  // the output of a dropout
  bool packed = false;         // a bit an element instead of a byte
};

// dropout -> dropout_mask, dropout_apply. On a forward graph.
void store_dropout_masks(Graph& graph, const std::vector<StoredMask>& masks);

}  // namespace lithe
