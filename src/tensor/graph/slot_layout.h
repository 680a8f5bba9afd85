// Where slots lie in the block that an executor keeps for them.
#pragma once

#include <vector>

#include "tensor/graph/slots.h"

namespace lithe {

struct SlotLayout {
  std::vector<int64_t> offset;  // bytes, by slot; -1: on the host
  int64_t bytes = 0;            // of the block
};

// Matrices first: those of neighbouring layers then lie one behind the other, as one larger one.
SlotLayout slot_layout(const SlotTable& slots);

}  // namespace lithe
