// Which choice of a schedule needs most memory: the arena is made for it once, so that a run stays
// within its prediction whatever is chosen later.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace lithe {

// Of the planned graphs of a choice.
struct ChoiceBytes {
  int64_t arena = 0;
  int64_t live = 0;  // Plan::live_peak_bytes
  // The most that lives at once in each part of the step: parts are those of all choices, 0 where a
  // choice has nothing in a part.
  std::vector<int64_t> parts;
};

struct LargestChoice {
  std::vector<int64_t> units;  // ascending
  // What any choice needs: the largest live peak that was found and, on top, the largest gap that
  // placing the buffers of any of the tried choices left; at least the largest arena.
  int64_t arena = 0;
};

// `active` of `units` units. Every single unit is planned once, to see what it adds in each part of
// the step. For the parts that promise most, a choice is made greedily: the unit next that adds
// most there to those before it (units share what they keep, so what they add only falls). The
// largest of these is improved by swaps. Deterministic.
LargestChoice largest_choice(int64_t active, int64_t units,
                             const std::function<ChoiceBytes(std::span<const int64_t>)>& plan);

}  // namespace lithe
