// Which k of t units are trained in each step: SlimFit's inter-layer scheduling (arXiv 2305.18513:
// rank by how far a unit moved when it was last trained) and the simpler schedules that it is
// compared with. Knows neither graphs nor weights, only numbers of units.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace lithe {

enum class ScheduleKind : uint8_t {
  ils,          // the k units of largest score
  random,       // k units drawn anew in each step
  round_robin,  // the next k units in order, around and around
  progressive,  // k neighbours that move from the first units to the last over the run
};
// Throws GraphError for another name than those four.
ScheduleKind schedule_kind(std::string_view name);
std::string_view schedule_kind_name(ScheduleKind kind);

struct FreezeScheduleOptions {
  ScheduleKind kind = ScheduleKind::ils;
  double fraction = 0.9;  // of the units, frozen in each step
  uint64_t seed = 0;
  // Scores start at uniform [0, 1) times this; far above every real score, so that each unit comes
  // up once before any comes up again.
  double init_scale = 1e10;
  double ageing = 0;  // the score of a unit that was not trained grows by this part of itself
  bool skip_lr_zero = true;  // a step at learning rate 0 moves nothing and says nothing of a unit
  // A choice knows the measures of the steps up to 1 + lag before its own. A unit whose measure is
  // still under way counts with its score so far; where it has none, it comes after all others.
  int64_t lag = 0;
};

// trunc(fraction * units), in double precision as the original computes it.
int64_t frozen_count(double fraction, int64_t units);

// How far a unit moved in a step; NaN and infinity count as farthest.
struct UnitMoved {
  int64_t unit = 0;
  double by = 0;
};

class FreezeSchedule {
 public:
  FreezeSchedule(const FreezeScheduleOptions& options, int64_t units);

  int64_t units() const { return static_cast<int64_t>(score_.size()); }
  int64_t active_count() const { return units() - frozen_count(options_.fraction, units()); }
  // Number of steps in the run: what progressive moves over.
  void run_length(int64_t steps) { steps_ = steps; }

  // The units trained in a step, ascending. Steps are asked for once each, in order. Throws
  // GraphError where measures that it should know were not told.
  const std::vector<int64_t>& choose(int64_t step);
  // What the units of a chosen step did. Every step has to be told before the choice that knows it
  // (`lag`); only ils looks at it.
  void measured(int64_t step, double lr, std::span<const UnitMoved> moved);

  const std::vector<int64_t>& active() const { return active_; }  // of the last choice
  const std::vector<double>& scores() const { return score_; }
  const std::vector<int64_t>& times_trained() const { return times_; }

  // All that the next choices depend on, exactly. Throws FileError for the state of other options.
  nlohmann::json state() const;
  void restore(const nlohmann::json& state);

 private:
  struct Measured {
    int64_t step = 0;
    double lr = 0;
    std::vector<UnitMoved> moved;
  };

  void take_in(const Measured& measured);
  void choose_largest(int64_t step);
  void choose_random(int64_t step);
  void choose_in_turn(int64_t step);
  void choose_window(int64_t step);

  FreezeScheduleOptions options_;
  int64_t steps_ = 0;  // 0: not told
  std::vector<double> score_;
  std::vector<bool> scored_;        // false: the score is the one it started with
  std::vector<int64_t> times_;      // how often it was chosen
  std::vector<int64_t> last_;       // the step in which it was last chosen; -1: never
  int64_t told_ = -1;               // last step whose measures are in the scores
  std::deque<Measured> under_way_;  // of later steps
  std::vector<int64_t> active_;
};

}  // namespace lithe
