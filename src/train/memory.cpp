#include "train/memory.h"

#include <algorithm>
#include <numeric>

#include "tensor/graph/phase_name.h"
#include "tensor/graph/slot_layout.h"
#include "train/input_stage.h"

namespace lithe {
namespace {

void add(MemoryByClass& to, const MemoryByClass& other) {
  std::transform(to.begin(), to.end(), other.begin(), to.begin(), std::plus<>());
}

}  // namespace

MemoryReport memory_report(const SlotTable& slots, std::span<const StepGraph* const> steps,
                           DeviceKind device) {
  const StepGraph* largest =
      *std::max_element(steps.begin(), steps.end(), [](const StepGraph* a, const StepGraph* b) {
        return a->plan.arena_bytes < b->plan.arena_bytes;
      });
  const Graph& g = *largest->graph;
  const Plan& plan = largest->plan;
  const int end = static_cast<int>(plan.order.size());

  MemoryReport report;
  MemoryByClass persistent = slot_bytes(slots);
  const int64_t stage = input_stage_bytes(steps, device);
  persistent[static_cast<size_t>(MemoryClass::temporaries)] += stage;
  report.persistent_bytes = std::accumulate(persistent.begin(), persistent.end(), int64_t{0});
  report.arena_bytes = plan.arena_bytes;
  for (const StepGraph* step : steps) {
    report.host_bytes = std::max(report.host_bytes, step->plan.host_bytes);
  }
  report.predicted_peak_bytes = checked_add(report.persistent_bytes, plan.arena_bytes);
  report.peak_by_class = plan.peak_by_class;
  add(report.peak_by_class, persistent);
  report.peak_position = plan.peak_position;
  report.timeline = plan.timeline();
  report.timeline.pop_back();  // the moment after the step has no node
  for (MemoryByClass& moment : report.timeline) {
    add(moment, persistent);
  }
  for (NodeId n : plan.order) {
    report.order.push_back(fmt::format("{}/{}", phase_name(g.node(n).phase), g.node_name(n)));
  }
  const SlotLayout layout = slot_layout(slots);
  for (SlotId s = 0; s < slots.size(); ++s) {
    if (!slots[s].on_host) {
      report.values.push_back({slots[s].name, byte_size(slots[s].dtype, slots[s].shape),
                               layout.offset[static_cast<size_t>(s)], slots[s].cls, -1, end});
    }
  }
  if (stage > 0) {
    report.values.push_back(
        {"inputs of the next step", stage, layout.bytes, MemoryClass::temporaries, -1, end});
  }
  for (const Buffer& b : plan.buffers) {
    const std::string name = b.scratch_of == kNoNode
                                 ? g.name(b.value)
                                 : fmt::format("{} workspace", g.node_name(b.scratch_of));
    report.values.push_back({name, b.bytes, b.offset, b.cls, b.first, b.last});
  }
  return report;
}

}  // namespace lithe
