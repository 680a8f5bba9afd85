#include "optim/state_slots.h"

namespace lithe {
namespace {

std::string state_name(const SlotTable& slots, SlotId parameter, std::string_view kind) {
  return fmt::format("optimizer.{}.{}", kind, slots[parameter].name);
}

}  // namespace

SlotId add_state_slot(SlotTable& slots, SlotId parameter, std::string_view kind, DType dtype,
                      const Shape& shape) {
  return slots.add({.name = state_name(slots, parameter, kind),
                    .dtype = dtype,
                    .shape = shape,
                    .cls = MemoryClass::optimizer,
                    .kind = SlotKind::state});
}

SlotId add_moment_slot(SlotTable& slots, SlotId parameter, std::string_view kind) {
  const DType dtype = slots[parameter].dtype == DType::f64 ? DType::f64 : DType::f32;
  return add_state_slot(slots, parameter, kind, dtype, slots[parameter].shape);
}

bool has_state_slot(const SlotTable& slots, SlotId parameter, std::string_view kind) {
  return slots.find(state_name(slots, parameter, kind)) != kNoSlot;
}

SlotId state_slot(const SlotTable& slots, SlotId parameter, std::string_view kind) {
  const SlotId slot = slots.find(state_name(slots, parameter, kind));
  if (slot == kNoSlot) {
    throw GraphError("optimizer", "'{}' has no state; add_state must run before graphs are built",
                     state_name(slots, parameter, kind));
  }
  return slot;
}

}  // namespace lithe
