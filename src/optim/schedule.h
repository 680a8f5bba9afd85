// Learning-rate schedules as factors on the peak rate; update s = 0, 1, ... of `steps`, as Hugging
// Face's get_scheduler computes them: with warm-up, update 0 runs at 0.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lithe {

enum class ScheduleKind : uint8_t { constant, linear, cosine };

struct Schedule {
  ScheduleKind kind = ScheduleKind::linear;
  int64_t warmup = 0;
  int64_t steps = 0;

  double factor(int64_t step) const;
};

std::vector<std::string> schedule_names();
ScheduleKind schedule_from_name(const std::string& name);

}  // namespace lithe
