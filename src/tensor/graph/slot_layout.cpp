#include "tensor/graph/slot_layout.h"

#include "tensor/core/checked.h"
#include "tensor/graph/plan.h"

namespace lithe {

SlotLayout slot_layout(const SlotTable& slots) {
  SlotLayout out;
  out.offset.assign(static_cast<size_t>(slots.size()), -1);
  for (const bool matrices : {true, false}) {
    for (SlotId s = 0; s < slots.size(); ++s) {
      const Slot& slot = slots[s];
      if ((slot.shape.rank() > 1) != matrices || slot.on_host) {
        continue;
      }
      out.offset[static_cast<size_t>(s)] = out.bytes;
      out.bytes =
          checked_add(out.bytes, round_up(byte_size(slot.dtype, slot.shape), kArenaAlignment));
    }
  }
  return out;
}

}  // namespace lithe
