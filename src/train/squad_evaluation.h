// Questions are measured by the answers' texts: exact match and F1 of the official evaluation.
#pragma once

#include <memory>

#include "data/squad_decode.h"
#include "train/evaluation.h"

namespace lithe {

struct SquadSplit {
  SquadData data;
  SquadFeatures features;  // with their spans
};

std::unique_ptr<Evaluation> make_squad_evaluation(std::shared_ptr<const SquadSplit> split,
                                                  const SquadDecodeOptions& options);

// Share of rows whose first and last tokens are both right: for spans without texts.
std::unique_ptr<Evaluation> make_span_evaluation();

}  // namespace lithe
