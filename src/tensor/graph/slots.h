// Slots: the tensors that outlive a step (weights, optimizer state, gradient accumulators,
// buffers). Graphs are rebuilt at will and refer to slots by number; one table lives for the whole
// run.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>

#include "tensor/core/memory_class.h"
#include "tensor/core/tensor.h"

namespace lithe {

using SlotId = int32_t;
inline constexpr SlotId kNoSlot = -1;

enum class SlotKind : uint8_t { parameter, state };

// How a slot is filled before the first step; a pure function of (seed, name).
struct Init {
  enum class Kind : uint8_t { constant, normal } kind = Kind::constant;
  double scale = 0;  // the constant, or the standard deviation

  static Init zeros() { return {}; }
  static Init ones() { return {Kind::constant, 1.0}; }
  static Init normal(double std) { return {Kind::normal, std}; }
};

struct Slot {
  std::string name;  // dotted, as in the file; unique
  DType dtype = DType::f32;
  Shape shape;
  MemoryClass cls = MemoryClass::weights;
  SlotKind kind = SlotKind::parameter;
  Init init = {};
  bool trainable = false;  // parameters only; the freeze pass clears it
  // A table that is looked up; other parameters are computed with, and so may have a copy.
  bool lookup = false;
  // A parameter's rounded copy that the step computes with; its update keeps it. See add_copies.
  SlotId copy = kNoSlot;
  SlotId copy_of = kNoSlot;  // of the copy: the parameter
  // Lies in the host's memory, beside a device that has its own: no step reads it.
  bool on_host = false;
};

class SlotTable {
 public:
  SlotId add(Slot slot);                     // throws GraphError when the name is taken
  SlotId find(std::string_view name) const;  // kNoSlot when absent
  // Gives every fp32 parameter that is no lookup table a copy "copy.NAME" of this 16-bit dtype.
  void add_copies(DType dtype);
  // Leaves parameters that are not trained and have a copy to the host: steps read the copy.
  void keep_frozen_on_host();
  // The parameter itself, of a parameter or its copy.
  SlotId original(SlotId id) const {
    const SlotId of = (*this)[id].copy_of;
    return of == kNoSlot ? id : of;
  }
  Slot& operator[](SlotId id) { return slots_[static_cast<size_t>(id)]; }
  const Slot& operator[](SlotId id) const { return slots_[static_cast<size_t>(id)]; }
  int size() const { return static_cast<int>(slots_.size()); }

 private:
  std::deque<Slot> slots_;  // stable addresses: names are indexed by view
  std::unordered_map<std::string_view, SlotId> by_name_;
};

// The initial value of a slot.
Tensor initial_value(const SlotTable& slots, SlotId id, uint64_t seed);

}  // namespace lithe
