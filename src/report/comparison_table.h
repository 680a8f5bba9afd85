// A comparison for a terminal.
#pragma once

#include <span>
#include <string>

#include "report/memory_comparison.h"

namespace lithe {

// One column for each run (at least one): memory by class, the ten largest changes of values by
// layer, passes, settings that differ (at most 20), metrics and times. Aligned plain text, ends
// with a newline.
std::string comparison_table(std::span<const ComparedRun> runs);

}  // namespace lithe
