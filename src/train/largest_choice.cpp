#include "train/largest_choice.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>

#include "tensor/core/philox.h"

namespace lithe {
namespace {

constexpr size_t kParts = 4;  // for which a choice is made
constexpr int kSwaps = 32;

class Search {
 public:
  Search(int64_t active, int64_t units,
         const std::function<ChoiceBytes(std::span<const int64_t>)>& plan)
      : active_(active), plan_(plan) {
    for (int64_t u = 0; u < units; ++u) {
      alone_.push_back(plan_(std::span(&u, 1)));
      gap_ = std::max(gap_, alone_.back().arena - alone_.back().live);
    }
  }

  LargestChoice run() {
    for (const size_t part : promising_parts()) {
      (void)offer(greedy(part));
    }
    for (uint64_t i = 0; i < kSwaps; ++i) {
      const PhiloxBlock draw = philox(0, 0, i);
      std::vector<int64_t> choice = best_.units;
      const auto in = static_cast<int64_t>(draw.word[0] % static_cast<uint32_t>(alone_.size()));
      if (std::find(choice.begin(), choice.end(), in) == choice.end()) {
        choice[draw.word[1] % choice.size()] = in;
        (void)offer(std::move(choice));
      }
    }
    best_.arena = std::max(best_.arena, live_ + gap_);
    return best_;
  }

 private:
  static int64_t at(const ChoiceBytes& bytes, size_t part) {
    return part < bytes.parts.size() ? bytes.parts[part] : 0;
  }

  ChoiceBytes offer(std::vector<int64_t> choice) {
    std::sort(choice.begin(), choice.end());
    ChoiceBytes bytes = plan_(choice);
    live_ = std::max(live_, bytes.live);
    gap_ = std::max(gap_, bytes.arena - bytes.live);
    if (static_cast<int64_t>(choice.size()) == active_ && bytes.arena > best_.arena) {
      best_ = {std::move(choice), bytes.arena};
    }
    return bytes;
  }

  // The least that lives in a part: with a unit that adds nothing there.
  int64_t least(size_t part) const {
    int64_t out = INT64_MAX;
    for (const ChoiceBytes& bytes : alone_) {
      out = std::min(out, at(bytes, part));
    }
    return out;
  }

  // Those in which most would live if what units add summed up.
  std::vector<size_t> promising_parts() const {
    size_t count = 0;
    for (const ChoiceBytes& bytes : alone_) {
      count = std::max(count, bytes.parts.size());
    }
    std::vector<std::pair<int64_t, size_t>> parts;
    for (size_t part = 0; part < count; ++part) {
      std::vector<int64_t> added;
      for (const ChoiceBytes& bytes : alone_) {
        added.push_back(at(bytes, part) - least(part));
      }
      std::sort(added.rbegin(), added.rend());
      parts.emplace_back(std::accumulate(added.begin(), added.begin() + active_, least(part)),
                         part);
    }
    std::stable_sort(parts.begin(), parts.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<size_t> out;
    for (size_t i = 0; i < std::min(kParts, parts.size()); ++i) {
      out.push_back(parts[i].second);
    }
    return out;
  }

  std::vector<int64_t> greedy(size_t part) {
    struct Gain {
      int64_t bytes;
      int64_t unit;
      size_t known_at;  // how many units were chosen when this was planned
      bool operator<(const Gain& other) const {
        return bytes != other.bytes ? bytes < other.bytes : unit > other.unit;
      }
    };
    std::priority_queue<Gain> gains;
    for (size_t u = 0; u < alone_.size(); ++u) {
      gains.push({at(alone_[u], part) - least(part), static_cast<int64_t>(u), 0});
    }
    std::vector<int64_t> chosen;
    int64_t now = least(part);
    while (static_cast<int64_t>(chosen.size()) < active_) {
      Gain next = gains.top();
      gains.pop();
      if (next.known_at == chosen.size()) {
        chosen.push_back(next.unit);
        now += next.bytes;
        continue;
      }
      std::vector<int64_t> with = chosen;
      with.push_back(next.unit);
      gains.push({at(offer(std::move(with)), part) - now, next.unit, chosen.size()});
    }
    return chosen;
  }

  const int64_t active_;
  const std::function<ChoiceBytes(std::span<const int64_t>)>& plan_;
  std::vector<ChoiceBytes> alone_;
  LargestChoice best_;
  int64_t live_ = 0;
  int64_t gap_ = 0;
};

}  // namespace

LargestChoice largest_choice(int64_t active, int64_t units,
                             const std::function<ChoiceBytes(std::span<const int64_t>)>& plan) {
  if (active < units && active > 0) {
    return Search(active, units, plan).run();
  }
  LargestChoice only;
  only.units.resize(static_cast<size_t>(active));
  std::iota(only.units.begin(), only.units.end(), 0);
  only.arena = plan(only.units).arena;
  return only;
}

}  // namespace lithe
