// The plan: order, lifetimes and one arena with an offset for every value. The peak is known here,
// to the byte, before anything is allocated.
#pragma once

#include <string>
#include <vector>

#include "tensor/core/memory_class.h"
#include "tensor/graph/graph.h"

namespace lithe {

// Where a value lives.
struct Placement {
  enum class Block : uint8_t { none, arena, slot, host } block = Block::none;
  int64_t offset = 0;   // in the arena, or in the host block
  int32_t buffer = -1;  // in the arena: values that share memory share a buffer
};

// A piece of the arena, shared by a value, its views and in-place successors.
struct Buffer {
  ValueId value = kNoValue;  // the first value in it; kNoValue: scratch of node `scratch_of`
  NodeId scratch_of = kNoNode;
  int64_t bytes = 0;  // rounded up to kArenaAlignment
  int64_t offset = 0;
  int first = 0;  // positions in the order, both included; -1: written before the step
  int last = 0;
  MemoryClass cls = MemoryClass::temporaries;
};

inline constexpr int64_t kArenaAlignment = 256;

struct Plan {
  std::vector<NodeId> order;
  std::vector<Placement> placement;  // by value
  std::vector<int32_t> scratch;      // buffer of a node's workspace by position; -1: none
  // By position: one behind the last node of the group (OpDef::grouped) that it lies in. All
  // buffers of a group live from its first to its last node.
  std::vector<int32_t> group_end;
  std::vector<Buffer> buffers;
  // Of values in host memory (OpDef::outputs_on_host): a block of its own, no part of the arena.
  std::vector<Buffer> host_buffers;
  int64_t host_bytes = 0;
  int64_t arena_bytes = 0;
  int64_t live_peak_bytes = 0;  // largest sum of live buffers: no plan can be smaller
  int64_t naive_bytes = 0;      // sum of all buffers, as if nothing were reused
  int peak_position = 0;        // where live_peak_bytes occurs
  MemoryByClass
      peak_by_class{};  // live at peak_position; the arena's unused rest counts as temporaries
  std::vector<MemoryByClass> timeline() const;  // live bytes by class at each position
};

// Throws GraphError when a node needs what the graph does not define. Deterministic.
Plan make_plan(const Graph& graph, DeviceKind device);

// Offsets for buffers so that no two that live at the same time overlap; returns the arena's size.
int64_t place_buffers(std::vector<Buffer>& buffers, int64_t lower_bound);

// Bytes of all slots by class, each slot rounded up to kArenaAlignment.
MemoryByClass slot_bytes(const SlotTable& slots);

}  // namespace lithe
