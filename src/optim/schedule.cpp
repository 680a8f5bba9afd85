#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lithe {

double Schedule::factor(int64_t step) const {
  const auto at = static_cast<double>(step + first);
  if (at < warmup) {
    return at / std::max(1.0, warmup);
  }
  const double rest = std::max(1.0, static_cast<double>(steps + extra) - warmup);
  const double done = std::min(1.0, (at - warmup) / rest);
  switch (kind) {
    case ScheduleKind::constant:
      return 1;
    case ScheduleKind::linear:
      return 1 - done;
    case ScheduleKind::cosine:
      return 0.5 * (1 + std::cos(std::numbers::pi * done));
  }
  return 1;
}

std::vector<std::string> schedule_names() { return {"constant", "linear", "cosine"}; }

ScheduleKind schedule_from_name(const std::string& name) {
  return name == "constant" ? ScheduleKind::constant
                            : (name == "cosine" ? ScheduleKind::cosine : ScheduleKind::linear);
}

}  // namespace lithe
