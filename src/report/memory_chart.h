// Memory as charts: the stacked timeline over the plan's order, the peak bars, the largest values.
#pragma once

#include <string>
#include <vector>

#include "report/memory_report.h"

namespace lithe {

// A named stretch of the order, both ends inclusive.
struct Phase {
  std::string name;
  int first = 0;
  int last = 0;
};

// The prefixes up to the first "/" of the node names as stretches in order; stretches that overlap
// (an update follows its gradient at once) become one, "backward + update". Empty when fewer than
// two or more than eight are left, or when half the names have no prefix.
std::vector<Phase> plan_phases(const std::vector<std::string>& order);

std::string render_memory_timeline(const MemoryReport& report);  // empty without a timeline
std::string render_peak_bars(const MemoryReport& report);        // predicted by class, measured
std::string render_largest_values(const MemoryReport& report);   // empty without values

}  // namespace lithe
