// Names and makes the state slots of optimizers: "optimizer.<kind>.<parameter>".
#pragma once

#include <string_view>

#include "tensor/graph/slots.h"

namespace lithe {

SlotId add_state_slot(SlotTable& slots, SlotId parameter, std::string_view kind, DType dtype,
                      const Shape& shape);
// A state tensor of the parameter's shape: fp32, or fp64 for an fp64 parameter.
SlotId add_moment_slot(SlotTable& slots, SlotId parameter, std::string_view kind);
bool has_state_slot(const SlotTable& slots, SlotId parameter, std::string_view kind);
// The slot that these made; throws GraphError when there is none.
SlotId state_slot(const SlotTable& slots, SlotId parameter, std::string_view kind);

}  // namespace lithe
