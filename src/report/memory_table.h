// The memory and pass tables for a terminal.
#pragma once

#include <string>

#include "report/memory_report.h"

namespace lithe {

// By class (bytes, share), the peaks, the ten largest values alive at the peak, the passes; aligned
// columns, plain text, ends with a newline.
std::string memory_table(const MemoryReport& report);

// The pass table alone; empty when no pass ran.
std::string pass_table(const MemoryReport& report);

// "exact" or "+0.31 %": the measured peak against the predicted one.
std::string peak_difference(const MemoryReport& report);

}  // namespace lithe
