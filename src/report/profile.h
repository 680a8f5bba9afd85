// Where a step's time goes: each measured node beside what it computes and moves, as a table by op
// and as a trace for chrome://tracing or Perfetto.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "tensor/graph/plan.h"

namespace lithe {

// A node of the plan, or a group of nodes that runs as one (Plan::group_end).
struct ProfiledNode {
  std::string name;  // of a group: the first's, "... and 3 more"
  std::string op;
  std::string phase;   // "forward", "backward", "update"
  double seconds = 0;  // of one step
  double flops = 0;
  double bytes = 0;  // operands read and written once; 0 for a view, which launches nothing
};

struct StepProfile {
  std::vector<ProfiledNode> nodes;  // in the order in which they run
  int steps = 0;                    // that `seconds` is the mean of
  double step_seconds = 0;          // of a whole step, unprofiled; 0: unknown
  double flops_per_s = 0;           // of the device; 0: unknown
  double bytes_per_s = 0;
};

// Takes in one step, measured by Executor::run_profiled. The profile's steps are all of one plan;
// throws GraphError otherwise, or when `seconds` is not one number a position.
void add_step(StepProfile& profile, const Graph& graph, const Plan& plan,
              std::span<const double> seconds);

struct OpTotal {
  std::string op;
  int launches = 0;  // nodes and groups, without views
  double seconds = 0;
  double flops = 0;
  double bytes = 0;
  // Sum of each launch's max(flops / flops_per_s, bytes / bytes_per_s); 0: no rate is known.
  double floor_seconds = 0;
};

// Of one step, most time first.
std::vector<OpTotal> totals_by_op(const StepProfile& profile);

// Aligned plain text that ends with a newline: totals by op, then by phase, then the sum beside
// step_seconds. Floors stand there where a rate of the device is known.
std::string profile_table(const StepProfile& profile);

// Trace events of one step, nodes one after the other and a row for each phase; times in
// microseconds.
nlohmann::ordered_json chrome_trace(const StepProfile& profile);

}  // namespace lithe
