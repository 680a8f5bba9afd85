// From plans to the memory report: what will be asked of the device, by class, over the step's
// order.
#pragma once

#include "report/memory_report.h"
#include "train/step_graph.h"

namespace lithe {

// The report of the largest of `steps` on top of what stays: the slots, and where the device works
// beside the host the stage of the next step's inputs. One arena and one stage serve all steps.
MemoryReport memory_report(const SlotTable& slots, std::span<const StepGraph* const> steps,
                           DeviceKind device);

}  // namespace lithe
