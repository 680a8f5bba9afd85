#include "data/squad_decode.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "tensor/core/error.h"

namespace lithe {
namespace {

// Positions of the `count` highest values, highest first; the earlier of equal ones.
std::vector<int32_t> highest(std::span<const float> values, int64_t count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const auto keep = std::min<ptrdiff_t>(count, static_cast<ptrdiff_t>(order.size()));
  std::partial_sort(order.begin(), order.begin() + keep, order.end(), [&](int32_t a, int32_t b) {
    const float x = values[static_cast<size_t>(a)];
    const float y = values[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  });
  order.resize(static_cast<size_t>(keep));
  return order;
}

}  // namespace

SquadDecoder::SquadDecoder(const SquadData& data, const SquadFeatures& features,
                           SquadDecodeOptions options)
    : data_(data),
      features_(features),
      options_(options),
      questions_(data.questions.size()),
      added_(features.windows.size()),
      left_(static_cast<int64_t>(features.windows.size())) {
  if (features.spans.size() != features.texts.ids.size()) {
    throw UsageError("squad", "features without spans; make them with keep_spans");
  }
  if (options.best < 1 || options.max_answer_tokens < 1) {
    throw UsageError("squad", "best is {}, max_answer_tokens {}; wanted both at least 1",
                     options.best, options.max_answer_tokens);
  }
}

bool SquadDecoder::better(const Span& a, const Span& b) {
  return std::tuple(-a.score, a.row, a.first, a.last) <
         std::tuple(-b.score, b.row, b.first, b.last);
}

void SquadDecoder::add(int64_t row, std::span<const float> start, std::span<const float> end) {
  if (row < 0 || row >= features_.texts.rows() || added_[static_cast<size_t>(row)]) {
    throw UsageError("squad", "logits of row {}; wanted each of the {} rows once", row,
                     features_.texts.rows());
  }
  const auto length = static_cast<size_t>(features_.texts.length(row));
  if (start.size() < length || end.size() < length) {
    throw ShapeError("squad", "{} start and {} end logits for a row of {} tokens; give one a token",
                     start.size(), end.size(), length);
  }
  start = start.first(length);
  end = end.first(length);
  for (size_t i = 0; i < length; ++i) {
    if (!std::isfinite(start[i]) || !std::isfinite(end[i])) {
      throw NumericalError("squad", "logits of row {}, token {} are {} and {}; the model diverged",
                           row, i, start[i], end[i]);
    }
  }
  added_[static_cast<size_t>(row)] = true;
  --left_;

  const SquadWindow& window = features_.windows[static_cast<size_t>(row)];
  Question& question = questions_[static_cast<size_t>(window.question)];
  const float null_score = start[0] + end[0];
  question.null_score = question.seen ? std::min(question.null_score, null_score) : null_score;
  question.seen = true;

  const auto offset = static_cast<size_t>(features_.texts.offsets[static_cast<size_t>(row)]);
  const auto span = [&](int32_t token) {
    return features_.spans[offset + static_cast<size_t>(token)];
  };
  const auto inside = [&](int32_t token) {
    return token >= window.context_begin && token < window.context_end;
  };
  const std::vector<int32_t> ends = highest(end, options_.best);
  for (const int32_t first : highest(start, options_.best)) {
    for (const int32_t last : ends) {
      if (!inside(first) || !inside(last) || last < first ||
          last - first + 1 > options_.max_answer_tokens || span(last).end <= span(first).begin) {
        continue;
      }
      question.spans.push_back(
          {start[static_cast<size_t>(first)] + end[static_cast<size_t>(last)], row, first, last});
    }
  }
  std::sort(question.spans.begin(), question.spans.end(), better);
  if (question.spans.size() > static_cast<size_t>(options_.best)) {
    question.spans.resize(static_cast<size_t>(options_.best));
  }
}

SquadPrediction SquadDecoder::predict(const Question& question, std::string_view context) const {
  SquadPrediction out;
  const auto best = static_cast<size_t>(options_.best);
  const auto text = [&](const Span& span) {
    const TextSpan* row =
        features_.spans.data() + features_.texts.offsets[static_cast<size_t>(span.row)];
    const auto begin = static_cast<size_t>(row[span.first].begin);
    return std::string(context.substr(begin, static_cast<size_t>(row[span.last].end) - begin));
  };
  bool null_placed = !options_.no_answer;
  const auto place_null = [&] {
    out.candidates.push_back({"", question.null_score, 0});
    null_placed = true;
  };
  for (const Span& span : question.spans) {
    if (!null_placed && question.null_score > span.score) {
      place_null();
    }
    if (out.candidates.size() == best) {
      break;
    }
    out.candidates.push_back({text(span), span.score, 0});
  }
  if (!null_placed) {
    place_null();
  }
  if (!out.candidates.empty()) {
    const double top = out.candidates.front().score;
    double sum = 0;
    for (SquadCandidate& candidate : out.candidates) {
      candidate.probability = std::exp(candidate.score - top);
      sum += candidate.probability;
    }
    for (SquadCandidate& candidate : out.candidates) {
      candidate.probability /= sum;
    }
  }
  if (question.spans.empty()) {
    out.null_odds = question.null_score;  // as against a span of score 0
    return out;
  }
  out.answer = text(question.spans.front());
  out.null_odds = static_cast<double>(question.null_score) - question.spans.front().score;
  out.text = options_.no_answer && out.null_odds > options_.null_threshold ? "" : out.answer;
  return out;
}

std::vector<SquadPrediction> SquadDecoder::finish() const {
  if (left_ != 0) {
    throw UsageError("squad", "{} of {} rows have no logits; add them all", left_,
                     features_.texts.rows());
  }
  std::vector<SquadPrediction> out;
  out.reserve(questions_.size());
  for (size_t i = 0; i < questions_.size(); ++i) {
    const auto context = static_cast<size_t>(data_.questions[i].context);
    out.push_back(predict(questions_[i], data_.contexts[context].text));
  }
  return out;
}

}  // namespace lithe
