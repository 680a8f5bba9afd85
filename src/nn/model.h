// What a run needs of a model: named inputs, and the forward graph with its loss and counters.
#pragma once

#include <nlohmann/json.hpp>

#include "nn/module.h"

namespace lithe::nn {

struct BuildOptions {
  int64_t batch = 1;
  bool training = true;  // dropout on
  double label_smoothing = 0;
  bool loss = true;  // false: inference, no labels are declared
};

// A forward graph's interesting values. Inputs are graph leaves named "pixels", "labels", "rng",
// ...
struct ForwardOut {
  ValueId loss = kNoValue;     // scalar, mean over the batch
  ValueId logits = kNoValue;   // [B, classes]
  ValueId correct = kNoValue;  // int64 scalar, number of right answers
};

class Model : public Module {
 public:
  using Module::Module;
  virtual ForwardOut build(Graph& graph, const BuildOptions& options) const = 0;
  // Number of repeated blocks, for layer ranges in recipes.
  virtual int block_count() const = 0;
  // The Hugging Face config.json that describes it.
  virtual nlohmann::json config() const = 0;
};

}  // namespace lithe::nn
