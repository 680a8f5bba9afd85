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
    case RateKind::constant:
      return 1;
    case RateKind::linear:
      return 1 - done;
    case RateKind::cosine:
      return 0.5 * (1 + std::cos(std::numbers::pi * done));
  }
  return 1;
}

recipe::Schema schedule_options() {
  using recipe::Type;
  recipe::Schema schema;
  schema
      .add({.key = "name",
            .type = Type::string,
            .fallback = std::string("linear"),
            .help = "shape of the learning rate after warm-up",
            .choices = {"constant", "linear", "cosine"}})
      .add({.key = "warmup_steps",
            .type = Type::number,
            .fallback = 0.0,
            .help = "updates of linear warm-up from 0; 0.1: only the first update is at 0",
            .min = 0})
      .add({.key = "warmup_ratio",
            .type = Type::number,
            .fallback = 0.0,
            .help = "the same as a share of all updates; used when warmup_steps is 0",
            .min = 0,
            .max = 1})
      .add({.key = "extra_steps",
            .type = Type::integer,
            .fallback = int64_t{0},
            .help =
                "the rate falls as in a run that is longer by so many updates; below 0: as in a "
                "shorter one, and stays at its end"})
      .add({.key = "first_step",
            .type = Type::integer,
            .fallback = int64_t{0},
            .help = "position in the schedule of the first update; 1: one ahead",
            .min = 0});
  return schema;
}

Schedule make_schedule(const recipe::Recipe& section, int64_t steps) {
  const std::string name = section.string("name");
  Schedule out;
  out.kind = name == "constant" ? RateKind::constant
             : name == "cosine" ? RateKind::cosine
                                : RateKind::linear;
  out.steps = steps;
  out.warmup = section.number("warmup_steps");
  if (out.warmup == 0) {
    out.warmup = std::floor(section.number("warmup_ratio") * static_cast<double>(steps));
  }
  out.extra = section.integer("extra_steps");
  out.first = section.integer("first_step");
  return out;
}

}  // namespace lithe
