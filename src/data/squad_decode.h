// Answers out of start and end logits: the best spans over all windows of a question, against the
// score of "no answer" (BERT, Devlin et al. 2019, section 4.3).
#pragma once

#include "data/squad_features.h"

namespace lithe {

struct SquadDecodeOptions {
  int64_t best = 20;  // starts and ends tried per window, answers kept per question
  int64_t max_answer_tokens = 30;
  bool no_answer = true;      // SQuAD 2.0; false: every question gets its best span
  double null_threshold = 0;  // no answer where null_odds is above it
};

struct SquadCandidate {
  std::string text;
  double score = 0;        // start logit + end logit
  double probability = 0;  // softmax over the question's candidates
};

struct SquadPrediction {
  std::string text;      // after the threshold; empty: no answer
  std::string answer;    // the best span, whatever the threshold; empty where there is none
  double null_odds = 0;  // score of no answer, the least of the windows, less that of the best span
  // At most `best`, by falling score; with no_answer the empty text is among them, then one more.
  std::vector<SquadCandidate> candidates;
};

// Takes windows in any order and keeps a question's best spans only.
class SquadDecoder {
 public:
  // `features` need their spans; both must outlive the decoder. Throws UsageError.
  SquadDecoder(const SquadData& data, const SquadFeatures& features, SquadDecodeOptions options);

  // Logits of row `row`, [T] each; what goes beyond the row's tokens is padding and is not read.
  // Throws UsageError for a row outside the features or twice the same, ShapeError for fewer
  // logits than tokens, NumericalError for logits that are not finite.
  void add(int64_t row, std::span<const float> start, std::span<const float> end);

  // By question. Throws UsageError where rows are missing.
  std::vector<SquadPrediction> finish() const;

 private:
  struct Span {
    float score;
    int64_t row;
    int32_t first, last;  // tokens of the row
  };
  struct Question {
    std::vector<Span> spans;
    float null_score = 0;
    bool seen = false;
  };
  static bool better(const Span& a, const Span& b);
  SquadPrediction predict(const Question& question, std::string_view context) const;

  const SquadData& data_;
  const SquadFeatures& features_;
  SquadDecodeOptions options_;
  std::vector<Question> questions_;
  std::vector<bool> added_;
  int64_t left_ = 0;
};

}  // namespace lithe
