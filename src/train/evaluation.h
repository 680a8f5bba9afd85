// What a pass over the evaluation data is measured by: logits in, metrics out.
#pragma once

#include <memory>

#include "data/batch.h"
#include "report/run_data.h"

namespace lithe {

class Evaluation {
 public:
  virtual ~Evaluation() = default;
  // logits: fp32, as nn::ForwardOut says.
  virtual void add(const Batch& batch, const Tensor& logits) = 0;
  // The main metric first.
  virtual NamedNumbers result() const = 0;
};

// accuracy, F1 and Matthews' correlation; all in -1..1. `main` names the one to put first.
std::unique_ptr<Evaluation> make_classification_evaluation(int64_t classes,
                                                           std::string_view main = "accuracy");
// Pearson's and Spearman's correlation and the mean squared error.
std::unique_ptr<Evaluation> make_regression_evaluation();

}  // namespace lithe
