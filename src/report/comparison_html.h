// A comparison as one self-contained page.
#pragma once

#include <span>
#include <string>

#include "report/memory_comparison.h"

namespace lithe {

// Stacked bars by class on one scale, the timelines over one another, the tables of the terminal
// with more rows. Of at least one run; all names and texts are escaped.
std::string render_comparison(std::span<const ComparedRun> runs);

// Live bytes over one step as one line a run, every step stretched to the same width: phase by
// phase where all steps have the same phases, else as a whole. Empty where no run has a timeline.
std::string render_timelines(std::span<const ComparedRun> runs);

}  // namespace lithe
