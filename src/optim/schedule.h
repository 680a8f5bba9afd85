// Learning-rate schedules as factors on the peak rate, as Hugging Face's get_scheduler computes
// them: with warm-up, position 0 is at 0. Update s = 0, 1, ... of `steps` stands at position s +
// first, and the end of the schedule at steps + extra; behind it the rate stays.
#pragma once

#include <cstdint>

#include "recipe/recipe.h"

namespace lithe {

enum class RateKind : uint8_t { constant, linear, cosine };

struct Schedule {
  RateKind kind = RateKind::linear;
  double warmup = 0;  // positions; with 0.1 it is position 0 alone, at rate 0
  int64_t steps = 0;  // updates of the run
  int64_t extra = 0;
  int64_t first = 0;

  double factor(int64_t step) const;
};

// Options of the recipe's `schedule` section.
recipe::Schema schedule_options();
Schedule make_schedule(const recipe::Recipe& section, int64_t steps);

}  // namespace lithe
