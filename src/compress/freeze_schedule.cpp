#include "compress/freeze_schedule.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "tensor/core/error.h"
#include "tensor/core/philox.h"

namespace lithe {
namespace {

constexpr std::array<std::pair<ScheduleKind, std::string_view>, 4> kKinds = {{
    {ScheduleKind::ils, "ils"},
    {ScheduleKind::random, "random"},
    {ScheduleKind::round_robin, "round_robin"},
    {ScheduleKind::progressive, "progressive"},
}};

// Streams of the schedule's random numbers.
constexpr uint64_t kScoreStream = 0x5ced01;
constexpr uint64_t kDrawStream = 0x5ced02;

// Uniform in [0, 1) with 53 bits.
double uniform(uint64_t seed, uint64_t stream, uint64_t index) {
  const PhiloxBlock block = philox(seed, stream, index);
  const uint64_t bits = (static_cast<uint64_t>(block.word[0]) << 32) | block.word[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// As an ascending sort of the original's framework has it: numbers, infinity, NaN.
bool below(double a, double b) { return !std::isnan(a) && (std::isnan(b) || a < b); }

// JSON has neither NaN nor infinity, and its decimals are not meant to keep every bit.
nlohmann::json bits_of(double value) { return std::bit_cast<uint64_t>(value); }
double value_of(const nlohmann::json& bits) { return std::bit_cast<double>(bits.get<uint64_t>()); }

}  // namespace

ScheduleKind schedule_kind(std::string_view name) {
  for (const auto& [kind, known] : kKinds) {
    if (known == name) {
      return kind;
    }
  }
  throw GraphError("freeze", "'{}' is no schedule; use ils, random, round_robin or progressive",
                   name);
}

std::string_view schedule_kind_name(ScheduleKind kind) {
  return std::find_if(kKinds.begin(), kKinds.end(), [&](const auto& k) { return k.first == kind; })
      ->second;
}

int64_t frozen_count(double fraction, int64_t units) {
  return static_cast<int64_t>(fraction * static_cast<double>(units));
}

FreezeSchedule::FreezeSchedule(const FreezeScheduleOptions& options, int64_t units)
    : options_(options) {
  const auto t = static_cast<size_t>(units);
  score_.resize(t);
  scored_.assign(t, false);
  times_.assign(t, 0);
  last_.assign(t, -1);
  for (size_t u = 0; u < t; ++u) {
    score_[u] = uniform(options_.seed, kScoreStream, u) * options_.init_scale;
  }
}

const std::vector<int64_t>& FreezeSchedule::choose(int64_t step) {
  while (!under_way_.empty() && under_way_.front().step < step - options_.lag) {
    take_in(under_way_.front());
    under_way_.pop_front();
  }
  active_.clear();
  switch (options_.kind) {
    case ScheduleKind::ils:
      choose_largest(step);
      break;
    case ScheduleKind::random:
      choose_random(step);
      break;
    case ScheduleKind::round_robin:
      choose_in_turn(step);
      break;
    case ScheduleKind::progressive:
      choose_window(step);
      break;
  }
  std::sort(active_.begin(), active_.end());
  std::vector<bool> trains(score_.size(), false);
  for (const int64_t unit : active_) {
    const auto u = static_cast<size_t>(unit);
    trains[u] = true;
    ++times_[u];
    last_[u] = step;
  }
  if (options_.ageing > 0) {
    for (size_t u = 0; u < score_.size(); ++u) {
      score_[u] *= trains[u] ? 1 : 1 + options_.ageing;
    }
  }
  return active_;
}

void FreezeSchedule::measured(int64_t step, double lr, std::span<const UnitMoved> moved) {
  if (options_.kind == ScheduleKind::ils) {
    under_way_.push_back({step, lr, {moved.begin(), moved.end()}});
  }
}

void FreezeSchedule::take_in(const Measured& measured) {
  told_ = measured.step;
  if (measured.lr == 0 && options_.skip_lr_zero) {
    return;
  }
  for (const UnitMoved& m : measured.moved) {
    score_[static_cast<size_t>(m.unit)] = m.by;
    scored_[static_cast<size_t>(m.unit)] = true;
  }
}

void FreezeSchedule::choose_largest(int64_t step) {
  if (told_ < step - 1 - options_.lag) {
    throw GraphError("freeze",
                     "step {} is to be chosen, but measures are known up to step {} only; tell "
                     "each step's (measured) before the choice that knows it",
                     step, told_);
  }
  std::vector<int64_t> order(score_.size());
  std::iota(order.begin(), order.end(), 0);
  const auto waits = [&](size_t u) { return !scored_[u] && last_[u] > told_; };
  // Equal scores: the unit that has waited longest, so that several NaN take turns.
  std::sort(order.begin(), order.end(), [&](int64_t left, int64_t right) {
    const auto a = static_cast<size_t>(left);
    const auto b = static_cast<size_t>(right);
    if (waits(a) != waits(b)) {
      return waits(b);
    }
    if (below(score_[a], score_[b]) || below(score_[b], score_[a])) {
      return below(score_[b], score_[a]);
    }
    return last_[a] != last_[b] ? last_[a] < last_[b] : a < b;
  });
  active_.assign(order.begin(), order.begin() + active_count());
}

void FreezeSchedule::choose_random(int64_t step) {
  std::vector<int64_t> order(score_.size());
  std::iota(order.begin(), order.end(), 0);
  const uint64_t stream = mix(kDrawStream, static_cast<uint64_t>(step));
  for (int64_t i = 0; i < active_count(); ++i) {
    const double draw = uniform(options_.seed, stream, static_cast<uint64_t>(i));
    const int64_t left = units() - i;
    const auto other =
        i + std::min(left - 1, static_cast<int64_t>(draw * static_cast<double>(left)));
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(other)]);
  }
  active_.assign(order.begin(), order.begin() + active_count());
}

void FreezeSchedule::choose_in_turn(int64_t step) {
  for (int64_t i = 0; i < active_count(); ++i) {
    active_.push_back((step * active_count() + i) % units());
  }
}

void FreezeSchedule::choose_window(int64_t step) {
  if (steps_ < 1) {
    throw GraphError("freeze",
                     "a progressive schedule was asked for step {} before it was told "
                     "how long the run is; call run_length first",
                     step);
  }
  // Places 0 to t - k, each for an equal part of the run.
  const double part = static_cast<double>(std::min(step, steps_ - 1)) / static_cast<double>(steps_);
  const int64_t places = units() - active_count() + 1;
  active_.resize(static_cast<size_t>(active_count()));
  std::iota(active_.begin(), active_.end(),
            static_cast<int64_t>(part * static_cast<double>(places)));
}

nlohmann::json FreezeSchedule::state() const {
  nlohmann::json scores = nlohmann::json::array();
  for (const double score : score_) {
    scores.push_back(bits_of(score));
  }
  nlohmann::json waiting = nlohmann::json::array();
  for (const Measured& m : under_way_) {
    nlohmann::json moved = nlohmann::json::array();
    for (const UnitMoved& unit : m.moved) {
      moved.push_back({unit.unit, bits_of(unit.by)});
    }
    waiting.push_back({{"step", m.step}, {"lr", bits_of(m.lr)}, {"moved", moved}});
  }
  return {{"schedule", schedule_kind_name(options_.kind)},
          {"seed", options_.seed},
          {"active_count", active_count()},
          {"score_bits", scores},
          {"scored", scored_},
          {"times_trained", times_},
          {"last_trained", last_},
          {"told", told_},
          {"under_way", waiting}};
}

void FreezeSchedule::restore(const nlohmann::json& state) {
  try {
    const auto check = [&](std::string_view what, const nlohmann::json& saved,
                           const nlohmann::json& now) {
      if (saved != now) {
        throw FileError("checkpoint", "its freeze.{} is {}, the recipe's is {}; use the same", what,
                        saved.dump(), now.dump());
      }
    };
    check("schedule", state.at("schedule"), schedule_kind_name(options_.kind));
    check("seed", state.at("seed"), options_.seed);
    check("units", state.at("score_bits").size(), score_.size());
    check("active units", state.at("active_count"), active_count());
    FreezeSchedule read(options_, units());
    std::transform(state.at("score_bits").begin(), state.at("score_bits").end(),
                   read.score_.begin(), value_of);
    state.at("scored").get_to(read.scored_);
    state.at("times_trained").get_to(read.times_);
    state.at("last_trained").get_to(read.last_);
    state.at("told").get_to(read.told_);
    check("units", read.scored_.size(), score_.size());
    check("units", read.times_.size(), score_.size());
    check("units", read.last_.size(), score_.size());
    for (const nlohmann::json& m : state.at("under_way")) {
      Measured measured{m.at("step").get<int64_t>(), value_of(m.at("lr")), {}};
      for (const nlohmann::json& unit : m.at("moved")) {
        measured.moved.push_back({unit.at(0).get<int64_t>(), value_of(unit.at(1))});
        if (measured.moved.back().unit < 0 || measured.moved.back().unit >= units()) {
          throw FileError("checkpoint", "a schedule of {} units has no unit {}", units(),
                          measured.moved.back().unit);
        }
      }
      read.under_way_.push_back(std::move(measured));
    }
    read.steps_ = steps_;
    *this = std::move(read);
  } catch (const nlohmann::json::exception& e) {
    throw FileError("checkpoint", "the state of the freezing schedule cannot be read: {}",
                    e.what());
  }
}

}  // namespace lithe
