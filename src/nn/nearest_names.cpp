#include "nn/nearest_names.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "recipe/nearest.h"

namespace lithe::nn {
namespace {

// Pairs of names that are all compared.
constexpr size_t kFewPairs = 4096;

std::vector<std::string_view> parts_of(std::string_view name) {
  std::vector<std::string_view> parts;
  while (!name.empty()) {
    const size_t dot = std::min(name.find('.'), name.size());
    parts.push_back(name.substr(0, dot));
    name.remove_prefix(std::min(dot + 1, name.size()));
  }
  return parts;
}

// Names by the parts between their dots.
class PartIndex {
 public:
  explicit PartIndex(std::span<const std::string> names) {
    for (size_t i = 0; i < names.size(); ++i) {
      for (std::string_view part : parts_of(names[i])) {
        auto& holders = holders_[part];
        if (holders.size() <= kMostHolders) {
          holders.push_back(i);
        }
      }
    }
  }

  // Appends the names with the most and rarest parts in common.
  void similar(std::string_view name, std::vector<size_t>& to) const {
    std::unordered_map<size_t, double> scores;
    for (std::string_view part : parts_of(name)) {
      const auto it = holders_.find(part);
      if (it == holders_.end() || it->second.size() > kMostHolders) {
        continue;
      }
      for (size_t i : it->second) {
        scores[i] += 1.0 / static_cast<double>(it->second.size());
      }
    }
    std::vector<std::pair<double, size_t>> order;
    order.reserve(scores.size());
    for (const auto& [i, score] : scores) {
      order.emplace_back(-score, i);
    }
    const size_t count = std::min(kMostSimilar, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count),
                      order.end());
    for (size_t i = 0; i < count; ++i) {
      to.push_back(order[i].second);
    }
  }

 private:
  static constexpr size_t kMostHolders = 512;  // a part of more names says nothing
  static constexpr size_t kMostSimilar = 12;

  std::unordered_map<std::string_view, std::vector<size_t>> holders_;
};

// Names in alphabetical order, or in that of their reversals.
class SortedIndex {
 public:
  SortedIndex(std::span<const std::string> names, bool reversed) : reversed_(reversed) {
    for (size_t i = 0; i < names.size(); ++i) {
      order_.emplace_back(key(names[i]), i);
    }
    std::sort(order_.begin(), order_.end());
  }

  // Appends the names around the place where `name` would be.
  void around(const std::string& name, std::vector<size_t>& to) const {
    constexpr std::ptrdiff_t kEachSide = 2;
    const auto at = std::lower_bound(order_.begin(), order_.end(), std::pair(key(name), size_t{0}));
    const auto first = at - std::min(kEachSide, at - order_.begin());
    const auto last = at + std::min(kEachSide, order_.end() - at);
    for (auto it = first; it != last; ++it) {
      to.push_back(it->second);
    }
  }

 private:
  std::string key(const std::string& name) const {
    return reversed_ ? std::string(name.rbegin(), name.rend()) : name;
  }

  bool reversed_;
  std::vector<std::pair<std::string, size_t>> order_;
};

}  // namespace

void add_nearest_names(const std::vector<std::string>& names,
                       const std::vector<std::string>& others, NearestNames& nearest) {
  const auto add = [&](const std::string& name, std::span<const std::string> candidates) {
    if (std::string best = recipe::nearest_name(name, candidates); !best.empty()) {
      nearest.emplace(name, std::move(best));
    }
  };
  if (names.empty() || others.size() <= kFewPairs / names.size()) {
    for (const std::string& name : names) {
      add(name, others);
    }
    return;
  }
  const PartIndex parts(others);
  const SortedIndex forwards(others, false);
  const SortedIndex backwards(others, true);
  for (const std::string& name : names) {
    std::vector<size_t> found;
    parts.similar(name, found);
    forwards.around(name, found);
    backwards.around(name, found);
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    std::vector<std::string> candidates;
    candidates.reserve(found.size());
    for (size_t i : found) {
      candidates.push_back(others[i]);
    }
    add(name, candidates);
  }
}

}  // namespace lithe::nn
