// What a run needs of a model: named inputs, and the forward graph with its loss and counters.
#pragma once

#include <nlohmann/json.hpp>

#include "nn/module.h"

namespace lithe::nn {

enum class InputKind : uint8_t { images, text };

// What the head predicts, and so the labels and the loss:
//   classification  "labels" int64 [B]: cross-entropy
//   regression      "labels" fp32 [B]: mean squared error of one output
//   span            "labels" int64 [2, B], first and last token: mean of both cross-entropies
enum class Task : uint8_t { classification, regression, span };
std::string_view task_name(Task task);

struct BuildOptions {
  int64_t batch = 1;
  int64_t tokens = 0;    // length of the texts; unused by image models
  bool training = true;  // dropout on
  double label_smoothing = 0;
  bool loss = true;  // false: inference, no labels are declared
  // Of activations and of the copies of the weights that matrix products read; the weights, norms'
  // statistics, logits and the loss stay fp32 (fp64 weights: everything is fp64).
  DType compute = DType::f32;
};

// A forward graph's interesting values. Inputs are graph leaves: "pixels" fp32 [B, S, S, C] of
// image models; "input_ids", "token_type_ids" int64 [B, T] and "attention_mask" bool [B, T] of
// text models; "labels" as above; "rng" int64 [2] where dropout is on.
struct ForwardOut {
  ValueId loss = kNoValue;     // fp32 scalar, mean over the batch
  ValueId logits = kNoValue;   // fp32: [B, classes], regression [B, 1], span [2, B, T]
  ValueId correct = kNoValue;  // int64 scalar, number of right answers; classification only
  ValueId hidden = kNoValue;   // last hidden state [B, T, H], in the compute dtype
};

class Model : public Module {
 public:
  using Module::Module;
  virtual InputKind input_kind() const = 0;
  virtual Task task() const = 0;
  virtual ForwardOut build(Graph& graph, const BuildOptions& options) const = 0;
  // Path of the module that makes the logits: new for a new task, and so trained in full.
  virtual std::string head() const = 0;
  // Whether any of its modules draws.
  bool any_draws() const;
  // Number of repeated blocks, for layer ranges in recipes.
  virtual int block_count() const = 0;
  // Longest text that it takes; 0 for image models.
  virtual int64_t max_tokens() const { return 0; }
  // The Hugging Face config.json that describes it.
  virtual nlohmann::json config() const = 0;

  // Other names that parameter `name` has in older or bare files, in order of preference.
  virtual std::vector<std::string> other_names(const std::string& /*name*/) const { return {}; }
  // Whether a file's tensor is a constant that older versions saved, and no weight.
  virtual bool is_constant(std::string_view /*file_name*/) const { return false; }
};

}  // namespace lithe::nn
