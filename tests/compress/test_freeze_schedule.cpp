// The logic of scheduled freezing without a graph: counts, order, scores, state; and which weights
// of a model are units.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "compress/freeze_schedule.h"
#include "compress/freeze_units.h"
#include "nn/model_kinds.h"

using namespace lithe;  // NOLINT

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

FreezeScheduleOptions ils(double fraction, uint64_t seed = 1) {
  return {.kind = ScheduleKind::ils, .fraction = fraction, .seed = seed};
}

std::vector<UnitMoved> moved(const std::vector<int64_t>& units, double by) {
  std::vector<UnitMoved> out;
  for (const int64_t u : units) {
    out.push_back({u, by});
  }
  return out;
}

// Chooses and measures `steps` steps in which unit u moves by move(u, step).
template <typename Move>
std::vector<std::vector<int64_t>> play(FreezeSchedule& schedule, int64_t from, int64_t to,
                                       const Move& move, double lr = 1) {
  std::vector<std::vector<int64_t>> out;
  for (int64_t step = from; step < to; ++step) {
    out.push_back(schedule.choose(step));
    std::vector<UnitMoved> by;
    for (const int64_t u : out.back()) {
      by.push_back({u, move(u, step)});
    }
    schedule.measured(step, lr, by);
  }
  return out;
}

std::set<int64_t> as_set(const std::vector<int64_t>& units) { return {units.begin(), units.end()}; }

double falling(int64_t unit, int64_t step) {
  return 1.0 / static_cast<double>(1 + unit % 7) / static_cast<double>(1 + step);
}

struct Unit {
  SlotTable slots;
  std::unique_ptr<nn::Model> model;
  std::vector<std::string> names;
  explicit Unit(const nlohmann::json& config, const std::vector<std::string>& patterns = {"auto"},
                const std::vector<std::string>& always = {})
      : model(nn::make_model(slots, config)) {
    for (const NamedParameter& p : freeze_units(*model, patterns, always)) {
      names.push_back(p.name);
    }
  }
  bool has(const std::string& name) const {
    return std::find(names.begin(), names.end(), name) != names.end();
  }
};

const nlohmann::json kBert = {{"model_type", "bert"}};
const nlohmann::json kViT = {{"model_type", "vit"}};

}  // namespace

TEST_CASE("frozen units are counted as the paper's code counts them") {
  struct Row {
    double fraction;
    int64_t units, frozen, active, visits;
  };
  // Section 2.3 of the specification; 0.95 of 100 has to be 95.
  const std::vector<Row> rows = {{0.80, 102, 81, 21, 5}, {0.80, 101, 80, 21, 5},
                                 {0.85, 101, 85, 16, 7}, {0.90, 102, 91, 11, 10},
                                 {0.90, 99, 89, 10, 10}, {0.95, 102, 96, 6, 17},
                                 {0.75, 100, 75, 25, 4}, {0.95, 100, 95, 5, 20}};
  for (const Row& row : rows) {
    CAPTURE(row.fraction);
    CAPTURE(row.units);
    CHECK(frozen_count(row.fraction, row.units) == row.frozen);
    for (const ScheduleKind kind : {ScheduleKind::ils, ScheduleKind::random,
                                    ScheduleKind::round_robin, ScheduleKind::progressive}) {
      FreezeScheduleOptions options = ils(row.fraction);
      options.kind = kind;
      FreezeSchedule schedule(options, row.units);
      schedule.run_length(3 * row.visits);
      CHECK(schedule.active_count() == row.active);
      const auto chosen = play(schedule, 0, 3 * row.visits, falling);
      std::set<int64_t> seen;
      for (size_t step = 0; step < chosen.size(); ++step) {
        CHECK(static_cast<int64_t>(as_set(chosen[step]).size()) == row.active);
        CHECK(std::is_sorted(chosen[step].begin(), chosen[step].end()));
        CHECK(chosen[step].front() >= 0);
        CHECK(chosen[step].back() < row.units);
        if (kind == ScheduleKind::ils && static_cast<int64_t>(step) < row.units / row.active) {
          // Exploration: nothing twice before everything once.
          for (const int64_t u : chosen[step]) {
            CHECK(seen.insert(u).second);
          }
        }
        seen.insert(chosen[step].begin(), chosen[step].end());
        if (kind == ScheduleKind::ils && static_cast<int64_t>(step) + 1 == row.visits) {
          CHECK(static_cast<int64_t>(seen.size()) == row.units);
        }
      }
      CHECK(static_cast<int64_t>(seen.size()) <= row.units);
    }
  }
  CHECK(FreezeSchedule(ils(0), 7).choose(0) == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6});
  CHECK(FreezeSchedule(ils(1), 7).choose(0).empty());
}

TEST_CASE("the visiting order is a permutation that follows from the seed") {
  const auto order = [](uint64_t seed) {
    FreezeSchedule schedule(ils(0.95, seed), 40);  // two a step
    return play(schedule, 0, 20, falling);
  };
  CHECK(order(1) == order(1));
  CHECK(order(1) != order(2));
  std::set<int64_t> all;
  for (const auto& pair : order(3)) {
    all.insert(pair.begin(), pair.end());
  }
  CHECK(all.size() == 40);
}

TEST_CASE("after exploration those that moved most are trained, and only their scores change") {
  FreezeSchedule schedule(ils(0.8), 10);
  // The farther a unit is down the list, the more it moves; trained again it moves less.
  std::map<int64_t, int> visits;
  const auto move = [&](int64_t u, int64_t) {
    return static_cast<double>(u) / static_cast<double>(1 << 3 * visits[u]++);
  };
  play(schedule, 0, 5, move);
  for (int64_t u = 0; u < 10; ++u) {
    CHECK(schedule.times_trained()[static_cast<size_t>(u)] == 1);
  }
  CHECK(schedule.choose(5) == std::vector<int64_t>{8, 9});
  for (int64_t u = 0; u < 10; ++u) {
    CHECK(schedule.scores()[static_cast<size_t>(u)] == static_cast<double>(u));
  }
  schedule.measured(5, 1, std::vector<UnitMoved>{{8, 0.5}, {9, 7}});
  CHECK(schedule.choose(6) == std::vector<int64_t>{7, 9});  // equal scores: the one that waited
  schedule.measured(6, 1, std::vector<UnitMoved>{{7, 0.1}, {9, 0.2}});
  CHECK(schedule.choose(7) == std::vector<int64_t>{5, 6});
  CHECK(schedule.scores() == std::vector<double>{0, 1, 2, 3, 4, 5, 6, 0.1, 0.5, 0.2});
}

TEST_CASE("a choice is refused while measures that it should know are missing") {
  for (const int64_t lag : {0, 1}) {
    FreezeScheduleOptions options = ils(0.8);
    options.lag = lag;
    FreezeSchedule schedule(options, 10);
    for (int64_t step = 0; step <= lag; ++step) {
      CHECK_NOTHROW(schedule.choose(step));
    }
    CHECK_THROWS_AS(schedule.choose(lag + 1), GraphError);
  }
}

TEST_CASE("NaN and infinity count as largest, and several of them take turns") {
  FreezeSchedule schedule(ils(0.75), 8);
  play(schedule, 0, 40, [](int64_t u, int64_t) {
    return u == 2 ? kNan : u == 5 ? kInfinity : static_cast<double>(u);
  });
  CHECK(schedule.choose(40) == std::vector<int64_t>{2, 5});
  CHECK(std::isnan(schedule.scores()[2]));

  // Where all are NaN, the first k stay for good, as in the original; among equal scores the unit
  // that has waited longest comes first.
  FreezeSchedule lost(ils(0.75), 8);
  std::map<int64_t, int> visits;
  for (const auto& chosen : play(lost, 0, 40, [](int64_t, int64_t) { return kNan; })) {
    for (const int64_t u : chosen) {
      ++visits[u];
    }
  }
  CHECK(visits.size() == 2);
  FreezeScheduleOptions low = ils(0.75);
  low.init_scale = 0;
  FreezeSchedule equal(low, 8);
  visits.clear();
  for (const auto& chosen : play(equal, 0, 40, [](int64_t, int64_t) { return 0.0; })) {
    for (const int64_t u : chosen) {
      ++visits[u];
    }
  }
  for (int64_t u = 0; u < 8; ++u) {
    CHECK(visits[u] == 10);
  }
}

TEST_CASE("a first step at learning rate 0 starves its units only with the original setting") {
  for (const bool skips : {false, true}) {
    CAPTURE(skips);
    FreezeScheduleOptions options = ils(0.8);
    options.skip_lr_zero = skips;
    FreezeSchedule schedule(options, 10);
    const auto first = schedule.choose(0);
    schedule.measured(0, 0, moved(first, 0));  // nothing moves at lr 0
    play(schedule, 1, 400, [](int64_t u, int64_t step) {
      return static_cast<double>(u + 1) * (1 - static_cast<double>(step) / 400);
    });
    for (const int64_t u : first) {
      const int64_t times = schedule.times_trained()[static_cast<size_t>(u)];
      CAPTURE(times);
      CHECK((times == 1) == !skips);
    }
  }
}

TEST_CASE("ageing brings back units of small scores") {
  for (const double ageing : {0.0, 0.05}) {
    FreezeScheduleOptions options = ils(0.8);
    options.ageing = ageing;
    FreezeSchedule schedule(options, 10);
    play(schedule, 0, 200, [](int64_t u, int64_t) { return u == 3 ? 1e-3 : 2 + falling(u, 0); });
    CAPTURE(ageing);
    CHECK((schedule.times_trained()[3] == 1) == (ageing == 0));
  }
  FreezeScheduleOptions options = ils(0.5);
  options.ageing = 0.5;
  FreezeSchedule schedule(options, 2);
  const auto chosen = play(schedule, 0, 2, [](int64_t u, int64_t) { return u == 0 ? 4.0 : 1.0; });
  // That of step 0 was frozen, and grew, in step 1; the loser of step 2 grows then.
  const bool zero_first = chosen[0] == std::vector<int64_t>{0};
  CHECK(schedule.choose(2) == std::vector<int64_t>{0});
  CHECK(schedule.scores()[0] == (zero_first ? 6.0 : 4.0));
  CHECK(schedule.scores()[1] == (zero_first ? 1.5 : 2.25));
}

TEST_CASE("with a lag, exploration still visits each unit once, and scores come a step later") {
  FreezeScheduleOptions options = ils(0.8);
  options.lag = 1;
  FreezeSchedule schedule(options, 10);
  std::set<int64_t> seen;
  const std::vector<UnitMoved> none;
  std::vector<int64_t> before;
  for (int64_t step = 0; step < 5; ++step) {
    const auto chosen = schedule.choose(step);
    for (const int64_t u : chosen) {
      CHECK(seen.insert(u).second);
    }
    // Scores of the step before are not known yet.
    for (const int64_t u : before) {
      CHECK(schedule.scores()[static_cast<size_t>(u)] > 1e3);
    }
    std::vector<UnitMoved> by;
    for (const int64_t u : chosen) {
      by.push_back({u, static_cast<double>(u + 1)});
    }
    schedule.measured(step, 1, by);
    before = chosen;
  }
  CHECK(seen.size() == 10);
  // Those of step 4 are not measured yet and not chosen; of the others the largest two are.
  std::vector<int64_t> others;
  for (int64_t u = 9; u >= 0 && others.size() < 2; --u) {
    if (std::find(before.begin(), before.end(), u) == before.end()) {
      others.push_back(u);
    }
  }
  std::sort(others.begin(), others.end());
  CHECK(schedule.choose(5) == others);
  schedule.measured(5, 1, moved(others, 0.5));
  // Step 4 is known, step 5 is not: its units still count with what they had.
  CHECK(schedule.choose(6) == std::vector<int64_t>{8, 9});
}

TEST_CASE("round robin, random and progressive do as they say") {
  FreezeScheduleOptions options = ils(0.7);
  options.kind = ScheduleKind::round_robin;
  FreezeSchedule turns(options, 10);
  CHECK(play(turns, 0, 4, falling) ==
        std::vector<std::vector<int64_t>>{{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {0, 1, 9}});

  options.kind = ScheduleKind::random;
  FreezeSchedule random(options, 10);
  play(random, 0, 3000, falling);
  for (const int64_t times : random.times_trained()) {
    // Binomial: 900 with a standard deviation of 25.
    CHECK(times > 780);
    CHECK(times < 1020);
  }
  FreezeSchedule same(options, 10);
  CHECK(play(same, 0, 50, falling) != play(same, 50, 100, falling));
  FreezeSchedule again(options, 10);
  FreezeSchedule late(options, 10);
  play(again, 0, 50, falling);
  CHECK(again.choose(50) == late.choose(50));  // a step's draw needs no history

  options.kind = ScheduleKind::progressive;
  FreezeSchedule window(options, 10);
  CHECK_THROWS_AS(window.choose(0), GraphError);
  window.run_length(80);
  const auto chosen = play(window, 0, 80, falling);
  CHECK(chosen.front() == std::vector<int64_t>{0, 1, 2});
  CHECK(chosen.back() == std::vector<int64_t>{7, 8, 9});
  for (size_t step = 1; step < chosen.size(); ++step) {
    const int64_t by = chosen[step][0] - chosen[step - 1][0];
    CHECK(by == (step % 10 == 0 ? 1 : 0));
    CHECK(chosen[step][2] == chosen[step][0] + 2);
  }
}

TEST_CASE("a restored schedule goes on as the one that was saved, NaN included") {
  for (const int64_t lag : {0, 1}) {
    for (const ScheduleKind kind : {ScheduleKind::ils, ScheduleKind::random,
                                    ScheduleKind::round_robin, ScheduleKind::progressive}) {
      FreezeScheduleOptions options = ils(0.8);
      options.kind = kind;
      options.lag = lag;
      options.ageing = 0.01;
      const auto move = [](int64_t u, int64_t step) {
        return u == 3 && step < 9 ? kNan : falling(u, step);
      };
      FreezeSchedule whole(options, 23);
      whole.run_length(30);
      play(whole, 0, 7, move);
      // Through text, as a checkpoint.
      const nlohmann::json saved = nlohmann::json::parse(whole.state().dump());
      FreezeSchedule resumed(options, 23);
      resumed.run_length(30);
      resumed.restore(saved);
      CHECK(play(whole, 7, 30, move) == play(resumed, 7, 30, move));
      CHECK(whole.times_trained() == resumed.times_trained());
      CHECK(whole.state() == resumed.state());
    }
  }
  FreezeSchedule schedule(ils(0.8), 10);
  const nlohmann::json saved = schedule.state();
  CHECK_THROWS_AS(FreezeSchedule(ils(0.8), 11).restore(saved), FileError);
  CHECK_THROWS_AS(FreezeSchedule(ils(0.5), 10).restore(saved), FileError);
  CHECK_THROWS_AS(FreezeSchedule(ils(0.8, 2), 10).restore(saved), FileError);
  CHECK_THROWS_AS(schedule.restore(nlohmann::json::object()), FileError);
  nlohmann::json bad = saved;
  bad["under_way"] = {{{"step", 0}, {"lr", 0}, {"moved", {{10, 0}}}}};
  CHECK_THROWS_AS(schedule.restore(bad), FileError);
}

TEST_CASE("units of BERT and ViT are those of the paper, in its order") {
  const Unit bert(kBert);
  CHECK(bert.names.size() == 102);
  CHECK(bert.names[0] == "bert.embeddings.word_embeddings.weight");
  CHECK(bert.names[3] == "bert.embeddings.LayerNorm.weight");
  CHECK(bert.names[8] == "bert.encoder.layer.0.attention.output.LayerNorm.weight");
  CHECK(bert.names[100] == "bert.pooler.dense.weight");
  CHECK(bert.names[101] == "classifier.weight");
  for (const std::string& name : bert.names) {
    CHECK_FALSE(name.ends_with("bias"));
  }

  nlohmann::json regression = kBert;
  regression["num_labels"] = 1;
  regression["problem_type"] = "regression";
  const Unit stsb(regression);
  CHECK(stsb.names.size() == 101);
  CHECK_FALSE(stsb.has("classifier.weight"));
  nlohmann::json span = kBert;
  span["architectures"] = {"BertForQuestionAnswering"};
  const Unit squad(span);
  CHECK(squad.names.size() == 101);
  CHECK(squad.has("qa_outputs.weight"));

  const Unit vit(kViT);
  CHECK(vit.names.size() == 100);
  CHECK(vit.names[0] == "vit.embeddings.cls_token");
  CHECK(vit.names[1] == "vit.embeddings.position_embeddings");
  CHECK(vit.names[2] == "vit.embeddings.patch_embeddings.projection.weight");
  CHECK(vit.has("vit.encoder.layer.11.layernorm_after.weight"));
  CHECK_FALSE(vit.has("vit.layernorm.weight"));
  CHECK(vit.names.back() == "classifier.weight");
  // CIFAR-10: the head is always trained.
  CHECK(Unit(kViT, {"auto"}, {"classifier.weight"}).names.size() == 99);

  CHECK(Unit(kViT, {"*.query.*"}).names.size() == 12);
  CHECK(Unit(kViT, {"vit.layernorm.weight"}).names.size() == 1);
  CHECK_THROWS_WITH_AS(Unit(kViT, {"classifier.bias"}),
                       doctest::Contains("the nearest is 'classifier.weight'"), UsageError);
  CHECK_THROWS_AS(Unit(kViT, {"auto"}, {"nothing"}), UsageError);
}
