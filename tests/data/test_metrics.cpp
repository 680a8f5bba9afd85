// Metrics against scikit-learn, SciPy and the official SQuAD rules (tests/golden/metrics.json).
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "../io/temp_folder.h"
#include "data/metrics.h"
#include "data/squad_metrics.h"
#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

using doctest::Approx;
using nlohmann::json;

const json& golden() {
  static const json all =
      json::parse(read_whole_file(std::string(LITHE_SOURCE_DIR) + "/tests/golden/metrics.json"));
  return all;
}

TEST_CASE("metrics: classes agree with scikit-learn") {
  for (const json& one : golden()["classes"]) {
    const auto labels = one["labels"].get<std::vector<int64_t>>();
    const auto predictions = one["predictions"].get<std::vector<int64_t>>();
    const auto classes = one["classes"].get<int64_t>();
    CAPTURE(classes);
    CAPTURE(labels.size());
    for (const char* name : {"accuracy", "f1", "matthews"}) {
      CAPTURE(name);
      CHECK(class_metric(name, predictions, labels, classes) ==
            Approx(one[name].get<double>()).epsilon(1e-13));
    }
  }
}

TEST_CASE("metrics: scores agree with SciPy") {
  for (const json& one : golden()["scores"]) {
    const auto labels = one["labels"].get<std::vector<double>>();
    const auto predictions = one["predictions"].get<std::vector<double>>();
    CAPTURE(labels.size());
    // The mean of 1e6 beside a spread of 0.3 costs six digits in either implementation.
    for (const char* name : {"pearson", "spearman", "mse"}) {
      CAPTURE(name);
      CHECK(score_metric(name, predictions, labels) ==
            Approx(one[name].get<double>()).epsilon(1e-10));
    }
  }
}

TEST_CASE("metrics: degenerate and wrong input") {
  const std::vector<double> constant(4, 0.1);
  const std::vector<double> rising = {1, 2, 3, 4};
  CHECK(pearson_correlation(constant, rising) == 0);
  CHECK(spearman_correlation(rising, constant) == 0);
  CHECK(pearson_correlation(rising, rising) == Approx(1).epsilon(1e-15));
  const std::vector<int64_t> none;
  const std::vector<int64_t> two = {0, 1};
  const std::vector<int64_t> three = {0, 1, 2};
  CHECK(has(message_of<UsageError>([&] { accuracy(none, none); }), "no samples"));
  CHECK(has(message_of<ShapeError>([&] { accuracy(two, three); }), "2 predictions and 3 labels"));
  CHECK(has(message_of<UsageError>([&] { f1_score(three, three, 2); }), "with 2 classes"));
  const std::vector<int64_t> negative = {0, -1};
  CHECK(has(message_of<UsageError>([&] { matthews_correlation(two, negative, 2); }), "label -1"));
  const std::vector<double> bad = {1, 2, 3, NAN};
  CHECK(has(message_of<NumericalError>([&] { mean_squared_error(bad, rising); }), "sample 3"));
  CHECK(has(message_of<UsageError>([&] { class_metric("auc", two, two, 2); }), "wanted accuracy"));
  CHECK(has(message_of<UsageError>([&] { score_metric("f1", rising, rising); }), "wanted pearson"));
}

TEST_CASE("metrics: SQuAD answers normalise and compare as the official script does") {
  for (const json& one : golden()["answers"]) {
    const auto gold = one["gold"].get<std::string>();
    const auto predicted = one["predicted"].get<std::string>();
    CAPTURE(gold);
    CAPTURE(predicted);
    CHECK(normalize_answer(gold) == one["normalized"].get<std::string>());
    CHECK(squad_exact(gold, predicted) == one["exact"].get<double>());
    CHECK(squad_f1(gold, predicted) == Approx(one["f1"].get<double>()).epsilon(1e-13));
  }
  CHECK(normalize_answer("\xFF the \xC3") == "\uFFFD \uFFFD");  // what is not UTF-8
}

TEST_CASE("metrics: SQuAD scores, splits and best thresholds") {
  const json& squad = golden()["squad"];
  const SquadData data = parse_squad(squad["file"].dump(), "golden");
  std::vector<SquadPrediction> said;
  for (const json& one : squad["said"]) {
    REQUIRE(one["id"].get<std::string>() == data.questions[said.size()].id);
    said.push_back({one["text"].get<std::string>(),
                    one["answer"].get<std::string>(),
                    one["null_odds"].get<double>(),
                    {}});
  }
  const SquadScores got = score_squad(data, said);
  const json& wanted = squad["evaluation"];
  const auto check = [&](const char* key, double value) {
    CAPTURE(key);
    CHECK(value == Approx(wanted[key].get<double>()).epsilon(1e-13));
  };
  check("exact", got.exact);
  check("f1", got.f1);
  check("total", static_cast<double>(got.total));
  check("has_answer_exact", got.has_answer_exact);
  check("has_answer_f1", got.has_answer_f1);
  check("has_answer_total", static_cast<double>(got.has_answer_total));
  check("no_answer_exact", got.no_answer_exact);
  check("no_answer_f1", got.no_answer_f1);
  check("no_answer_total", static_cast<double>(got.no_answer_total));
  check("best_exact", got.best_exact);
  check("best_exact_threshold", got.best_exact_threshold);
  check("best_f1", got.best_f1);
  check("best_f1_threshold", got.best_f1_threshold);

  // A threshold lies between different odds only, and may lie below all of them.
  for (size_t i = 0; i < said.size(); ++i) {
    said[i].null_odds = -3;
    said[i].answer = data.questions[i].answers.empty() ? "x" : data.questions[i].answers[0].text;
  }
  const SquadScores tied = score_squad(data, said);
  CHECK(tied.best_exact == Approx(100.0 * 8 / 11));  // answering all beats answering none
  CHECK(tied.best_exact_threshold == -3);
  for (SquadPrediction& one : said) {
    one.answer = "nonsense";
  }
  const SquadScores silent = score_squad(data, said);
  CHECK(silent.best_f1 == Approx(100.0 * 3 / 11));
  CHECK(silent.best_f1_threshold < -3);
  said.pop_back();
  CHECK(has(message_of<ShapeError>([&] { score_squad(data, said); }),
            "10 predictions for 11 questions"));
}

}  // namespace
}  // namespace lithe
