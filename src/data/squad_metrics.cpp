#include "data/squad_metrics.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "data/unicode_text.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

// What Python's string.punctuation holds.
bool is_punctuation_of_ascii(char32_t point) { return point < 0x80 && is_punctuation(point); }

// What Python's str.split() divides at.
bool is_space(char32_t point) { return is_white_space(point) || (point >= 28 && point <= 31); }

// What \w matches there: letters and numbers (underscores are gone with the punctuation).
bool is_word(char32_t point) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO &&
         category != UTF8PROC_CATEGORY_MN && category != UTF8PROC_CATEGORY_MC &&
         category != UTF8PROC_CATEGORY_ME;
}

// Lower-case code points without punctuation.
std::u32string fold(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = decode_utf8(text, at);
    at += static_cast<size_t>(point.bytes);
    if (!is_punctuation_of_ascii(point.value)) {
      const Mapping lower = lower_case(point.value);
      out.append(lower.points.begin(), lower.points.begin() + lower.count);
    }
  }
  return out;
}

std::vector<std::string> words(std::string_view text) {
  std::u32string points = fold(text);
  for (size_t begin = 0; begin < points.size();) {
    size_t end = begin;
    while (end < points.size() && is_word(points[end])) {
      ++end;
    }
    const std::u32string_view word = std::u32string_view(points).substr(begin, end - begin);
    if (word == U"a" || word == U"an" || word == U"the") {
      points.replace(begin, end - begin, end - begin, U' ');
    }
    begin = end + 1;
  }
  std::vector<std::string> out;
  bool inside = false;
  for (const char32_t point : points) {
    if (is_space(point)) {
      inside = false;
      continue;
    }
    if (!inside) {
      out.emplace_back();
      inside = true;
    }
    append_utf8(out.back(), point);
  }
  return out;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) {
    out += out.empty() ? part : " " + part;
  }
  return out;
}

double f1_of_words(const std::vector<std::string>& gold,
                   const std::vector<std::string>& predicted) {
  if (gold.empty() || predicted.empty()) {
    return gold.empty() && predicted.empty() ? 1 : 0;
  }
  std::map<std::string_view, int64_t> counts;
  for (const std::string& word : gold) {
    ++counts[word];
  }
  int64_t same = 0;
  for (const std::string& word : predicted) {
    const auto found = counts.find(word);
    if (found != counts.end() && found->second > 0) {
      --found->second;
      ++same;
    }
  }
  if (same == 0) {
    return 0;
  }
  const double precision = static_cast<double>(same) / static_cast<double>(predicted.size());
  const double recall = static_cast<double>(same) / static_cast<double>(gold.size());
  return 2 * precision * recall / (precision + recall);
}

struct Scored {
  double exact = 0;
  double f1 = 0;
};

// The best over the question's answers; no answer is the gold where it has none.
Scored score(const SquadQuestion& question, std::string_view text) {
  const std::vector<std::string> predicted = words(text);
  const std::string predicted_text = joined(predicted);
  Scored best;
  bool any = false;
  const auto compare = [&](const std::vector<std::string>& gold) {
    best.exact = std::max(best.exact, joined(gold) == predicted_text ? 1.0 : 0.0);
    best.f1 = std::max(best.f1, f1_of_words(gold, predicted));
    any = true;
  };
  for (const SquadAnswer& answer : question.answers) {
    if (const auto gold = words(answer.text); !gold.empty()) {
      compare(gold);
    }
  }
  if (!any) {
    compare({});
  }
  return best;
}

struct Threshold {
  double score = 0;  // sum over the questions
  double threshold = 0;
};

// Raises the threshold question by question, in order of their odds, from "no answer to all".
Threshold best_threshold(const SquadData& data, std::span<const SquadPrediction> predictions,
                         std::span<const Scored> scores, double Scored::*metric) {
  std::vector<size_t> order(predictions.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return predictions[a].null_odds < predictions[b].null_odds;
  });
  double sum = 0;
  for (const SquadQuestion& question : data.questions) {
    sum += question.answers.empty();
  }
  Threshold best{sum, std::nextafter(predictions[order.front()].null_odds,
                                     -std::numeric_limits<double>::infinity())};
  for (size_t at = 0; at < order.size(); ++at) {
    const size_t i = order[at];
    if (!data.questions[i].answers.empty()) {
      sum += scores[i].*metric;
    } else if (!predictions[i].answer.empty()) {
      sum -= 1;
    }
    // Questions with the same odds are answered together or not at all.
    const bool last =
        at + 1 == order.size() || predictions[order[at + 1]].null_odds != predictions[i].null_odds;
    if (last && sum > best.score) {
      best = {sum, predictions[i].null_odds};
    }
  }
  return best;
}

double percent(double sum, int64_t count) {
  return count == 0 ? 0 : 100 * sum / static_cast<double>(count);
}

}  // namespace

std::string normalize_answer(std::string_view text) { return joined(words(text)); }

double squad_exact(std::string_view gold, std::string_view predicted) {
  return normalize_answer(gold) == normalize_answer(predicted) ? 1 : 0;
}

double squad_f1(std::string_view gold, std::string_view predicted) {
  return f1_of_words(words(gold), words(predicted));
}

SquadScores score_squad(const SquadData& data, std::span<const SquadPrediction> predictions) {
  if (predictions.size() != data.questions.size() || predictions.empty()) {
    throw ShapeError("squad", "{} predictions for {} questions; wanted one each, and some",
                     predictions.size(), data.questions.size());
  }
  SquadScores out;
  std::vector<Scored> answers;  // of the best spans, whatever the threshold
  answers.reserve(predictions.size());
  for (size_t i = 0; i < predictions.size(); ++i) {
    const SquadQuestion& question = data.questions[i];
    const Scored scored = score(question, predictions[i].text);
    answers.push_back(score(question, predictions[i].answer));
    const bool has = !question.answers.empty();
    (has ? out.has_answer_exact : out.no_answer_exact) += scored.exact;
    (has ? out.has_answer_f1 : out.no_answer_f1) += scored.f1;
    ++(has ? out.has_answer_total : out.no_answer_total);
  }
  out.total = out.has_answer_total + out.no_answer_total;
  out.exact = percent(out.has_answer_exact + out.no_answer_exact, out.total);
  out.f1 = percent(out.has_answer_f1 + out.no_answer_f1, out.total);
  out.has_answer_exact = percent(out.has_answer_exact, out.has_answer_total);
  out.has_answer_f1 = percent(out.has_answer_f1, out.has_answer_total);
  out.no_answer_exact = percent(out.no_answer_exact, out.no_answer_total);
  out.no_answer_f1 = percent(out.no_answer_f1, out.no_answer_total);

  const Threshold exact = best_threshold(data, predictions, answers, &Scored::exact);
  const Threshold f1 = best_threshold(data, predictions, answers, &Scored::f1);
  out.best_exact = percent(exact.score, out.total);
  out.best_exact_threshold = exact.threshold;
  out.best_f1 = percent(f1.score, out.total);
  out.best_f1_threshold = f1.threshold;
  return out;
}

}  // namespace lithe
