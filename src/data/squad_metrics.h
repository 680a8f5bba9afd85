// Exact match and F1 of SQuAD 2.0's official evaluation (Rajpurkar et al. 2018); with answerable
// questions only it agrees with that of SQuAD 1.1.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "data/squad_decode.h"

namespace lithe {

// Lower case, without ASCII punctuation and the words a, an, the, words separated by one space.
std::string normalize_answer(std::string_view text);
// 1 where both normalise to the same, else 0.
double squad_exact(std::string_view gold, std::string_view predicted);
// Harmonic mean of precision and recall of the normalised words; 1 where both have none.
double squad_f1(std::string_view gold, std::string_view predicted);

// In percent; 0 where there are no questions of the kind.
struct SquadScores {
  double exact = 0, f1 = 0;  // of SquadPrediction::text
  int64_t total = 0;
  double has_answer_exact = 0, has_answer_f1 = 0;
  int64_t has_answer_total = 0;
  double no_answer_exact = 0, no_answer_f1 = 0;
  int64_t no_answer_total = 0;
  // The best that any null threshold would give SquadPrediction::answer, and that threshold: no
  // answer where null_odds is above it.
  double best_exact = 0, best_exact_threshold = 0;
  double best_f1 = 0, best_f1_threshold = 0;
};

// `predictions` by question. Throws ShapeError for another number of them.
SquadScores score_squad(const SquadData& data, std::span<const SquadPrediction> predictions);

}  // namespace lithe
