// The recipe's `data` section: what a run is trained and measured on.
#pragma once

#include <functional>
#include <memory>

#include "data/batch.h"
#include "nn/model.h"
#include "recipe/recipe.h"
#include "train/evaluation.h"

namespace lithe {

recipe::Schema data_options();

struct TrainingData {
  std::shared_ptr<const BatchSource> train;
  std::shared_ptr<const BatchSource> eval;  // null: the run never evaluates
  int64_t longest = 0;                      // tokens of the longest batch; 0: not text
  std::function<std::unique_ptr<Evaluation>()> evaluation;  // a new one for each pass over `eval`
  std::vector<std::string> lines;                           // what was found, for the log
};

// Opens (and tokenizes) everything. Throws UsageError when the data does not fit the model,
// FileError when files are missing or damaged.
TrainingData open_training_data(const recipe::Recipe& recipe, const nn::Model& model);

}  // namespace lithe
