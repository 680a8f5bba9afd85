// From plans to the memory report: what will be asked of the device, by class, over the step's
// order.
#pragma once

#include "report/memory_report.h"
#include "train/step_graph.h"

namespace lithe {

// The report of the largest of `steps` on top of the persistent slots: one arena serves them all.
MemoryReport memory_report(const SlotTable& slots, std::span<const StepGraph* const> steps);

}  // namespace lithe
