#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lithe {

double Schedule::factor(int64_t step) const {
  if (step < warmup) {
    return static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup));
  }
  const auto rest = static_cast<double>(std::max<int64_t>(1, steps - warmup));
  const double done = static_cast<double>(step - warmup) / rest;
  switch (kind) {
    case ScheduleKind::constant:
      return 1;
    case ScheduleKind::linear:
      return std::max(0.0, 1 - done);
    case ScheduleKind::cosine:
      return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * done)));
  }
  return 1;
}

std::vector<std::string> schedule_names() { return {"constant", "linear", "cosine"}; }

ScheduleKind schedule_from_name(const std::string& name) {
  return name == "constant" ? ScheduleKind::constant
                            : (name == "cosine" ? ScheduleKind::cosine : ScheduleKind::linear);
}

}  // namespace lithe
