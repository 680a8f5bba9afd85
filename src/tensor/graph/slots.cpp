#include "tensor/graph/slots.h"

#include <cmath>
#include <numbers>

#include "tensor/core/convert.h"
#include "tensor/core/error.h"
#include "tensor/core/name_hash.h"
#include "tensor/core/philox.h"

namespace lithe {
namespace {

double unit(uint32_t word) { return (static_cast<double>(word) + 0.5) / 4294967296.0; }

// Box-Muller.
double normal(uint64_t seed, uint64_t stream, uint64_t index) {
  const PhiloxBlock r = philox(seed, stream, index);
  return std::sqrt(-2 * std::log(unit(r.word[0]))) *
         std::cos(2 * std::numbers::pi * unit(r.word[1]));
}

}  // namespace

SlotId SlotTable::add(Slot slot) {
  if (by_name_.contains(slot.name)) {
    throw GraphError("slots", "the name '{}' is taken; names must be unique", slot.name);
  }
  slots_.push_back(std::move(slot));
  const auto id = static_cast<SlotId>(slots_.size() - 1);
  by_name_.emplace(slots_.back().name, id);
  return id;
}

SlotId SlotTable::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? kNoSlot : it->second;
}

void SlotTable::add_copies(DType dtype) {
  const int parameters = size();
  for (SlotId s = 0; s < parameters; ++s) {
    const Slot& slot = (*this)[s];
    if (slot.kind != SlotKind::parameter || slot.dtype != DType::f32 || slot.lookup) {
      continue;
    }
    const SlotId copy = add({.name = "copy." + slot.name,
                             .dtype = dtype,
                             .shape = slot.shape,
                             .cls = slot.cls,
                             .kind = SlotKind::state,
                             .init = slot.init,
                             .copy_of = s});
    (*this)[s].copy = copy;
  }
}

void SlotTable::keep_frozen_on_host() {
  for (Slot& slot : slots_) {
    slot.on_host = slot.kind == SlotKind::parameter && !slot.trainable && slot.copy != kNoSlot;
  }
}

Tensor initial_value(const SlotTable& slots, SlotId id, uint64_t seed) {
  const Slot& slot = slots[id];
  Tensor out(slot.dtype, slot.shape);
  // A copy starts as its parameter does.
  const uint64_t stream = name_hash(slots[slots.original(id)].name);
  dispatch_any(slot.dtype, slot.name, [&]<typename T>() {
    auto values = out.as<T>();
#pragma omp parallel for if (values.size() > 65536)
    for (size_t i = 0; i < values.size(); ++i) {
      const double v = slot.init.kind == Init::Kind::constant
                           ? slot.init.scale
                           : slot.init.scale * normal(seed, stream, i);
      values[i] = convert<T>(v);
    }
  });
  return out;
}

}  // namespace lithe
