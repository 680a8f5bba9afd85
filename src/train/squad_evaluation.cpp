#include "train/squad_evaluation.h"

#include <algorithm>

#include "data/squad_metrics.h"

namespace lithe {
namespace {

class Squad final : public Evaluation {
 public:
  Squad(std::shared_ptr<const SquadSplit> split, const SquadDecodeOptions& options)
      : split_(std::move(split)), decoder_(split_->data, split_->features, options) {}

  // logits [2, B, T]: starts, then ends.
  void add(const Batch& batch, const Tensor& logits) override {
    const auto values = logits.as<float>();
    const auto tokens = static_cast<size_t>(batch.tokens);
    const size_t ends = batch.rows.size() * tokens;
    for (size_t i = 0; i < batch.rows.size(); ++i) {
      decoder_.add(batch.rows[i], values.subspan(i * tokens, tokens),
                   values.subspan(ends + i * tokens, tokens));
    }
  }

  NamedNumbers result() const override {
    const SquadScores s = score_squad(split_->data, decoder_.finish());
    NamedNumbers out = {{"f1", s.f1}, {"exact", s.exact}};
    if (s.no_answer_total > 0) {
      out.insert(out.end(), {{"has_answer_f1", s.has_answer_f1},
                             {"no_answer_f1", s.no_answer_f1},
                             {"best_f1", s.best_f1},
                             {"best_f1_threshold", s.best_f1_threshold},
                             {"best_exact", s.best_exact},
                             {"best_exact_threshold", s.best_exact_threshold}});
    }
    return out;
  }

 private:
  std::shared_ptr<const SquadSplit> split_;
  SquadDecoder decoder_;
};

class Spans final : public Evaluation {
 public:
  void add(const Batch& batch, const Tensor& logits) override {
    const auto values = logits.as<float>();
    const auto labels = batch.find("labels")->as<int64_t>();
    const auto tokens = static_cast<std::ptrdiff_t>(batch.tokens);
    const size_t rows = batch.rows.size();
    const auto best = [&](size_t row) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row) * tokens;
      return std::max_element(begin, begin + tokens) - begin;
    };
    for (size_t i = 0; i < rows; ++i) {
      right_ += best(i) == labels[i] && best(rows + i) == labels[rows + i] ? 1 : 0;
    }
    rows_ += static_cast<int64_t>(rows);
  }

  NamedNumbers result() const override {
    return {
        {"exact", static_cast<double>(right_) / static_cast<double>(std::max<int64_t>(1, rows_))}};
  }

 private:
  int64_t right_ = 0;
  int64_t rows_ = 0;
};

}  // namespace

std::unique_ptr<Evaluation> make_squad_evaluation(std::shared_ptr<const SquadSplit> split,
                                                  const SquadDecodeOptions& options) {
  return std::make_unique<Squad>(std::move(split), options);
}

std::unique_ptr<Evaluation> make_span_evaluation() { return std::make_unique<Spans>(); }

}  // namespace lithe
