// BERT (Devlin et al. 2019, arXiv 1810.04805): post-norm encoder with a head for classification,
// regression or span questions, with the tensor names of Hugging Face's
// BertForSequenceClassification and BertForQuestionAnswering.
#pragma once

#include <optional>

#include <nlohmann/json.hpp>

#include "nn/config_reader.h"
#include "nn/layers.h"
#include "nn/model.h"
#include "recipe/schema.h"
#include "tensor/ops/activation.h"

namespace lithe::nn {

// Fields of config.json under their own names.
struct BertConfig {
  int64_t vocab_size = 30522;
  int64_t hidden_size = 768;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 12;
  int64_t intermediate_size = 3072;
  Activation hidden_act = Activation::gelu;
  double hidden_dropout_prob = 0.1;
  double attention_probs_dropout_prob = 0.1;
  std::optional<double> classifier_dropout;  // absent: hidden_dropout_prob
  int64_t max_position_embeddings = 512;
  int64_t type_vocab_size = 2;
  double initializer_range = 0.02;
  double layer_norm_eps = 1e-12;
  int64_t pad_token_id = 0;
  Labels labels{.count = 2, .names = {}};
  // From "architectures" (BertForQuestionAnswering: span, anything else has the pooled head) and
  // "problem_type" or num_labels (1: regression).
  Task task = Task::classification;

  // Throws FileError("config", ...) naming the field and the accepted values.
  static BertConfig from_json(const nlohmann::json& config);
  nlohmann::json to_json() const;
  static recipe::Schema options();  // the same fields, for recipes
  double head_dropout() const { return classifier_dropout.value_or(hidden_dropout_prob); }
};

class BertEmbeddings final : public Module {
 public:
  BertEmbeddings(SlotTable& slots, std::string path, const BertConfig& config);
  // ids, token types int64 [B, T] -> [B, T, H] in dtype `compute` (fp64 for fp64 weights).
  ValueId forward(Graph& graph, ValueId ids, ValueId token_types, ValueId rng, DType compute) const;

 private:
  const int64_t padding_;
  const double dropout_;
  Embedding& words_;
  Embedding& positions_;
  Embedding& token_types_;
  LayerNorm& norm_;
};

class BertBlock final : public Module {
 public:
  BertBlock(SlotTable& slots, std::string path, const BertConfig& config);
  std::string_view kind() const override { return "block"; }
  // x [B, T, H] -> [B, T, H]; key_mask bool [B, T], true where a token is no padding.
  ValueId forward(Graph& graph, ValueId x, ValueId key_mask, ValueId rng) const;

 private:
  const int64_t heads_;
  const Activation act_;
  const double hidden_dropout_;
  const double attention_dropout_;
  Linear& query_;
  Linear& key_;
  Linear& value_;
  Linear& attention_output_;
  LayerNorm& attention_norm_;
  Linear& intermediate_;
  Linear& output_;
  LayerNorm& output_norm_;
};

class Bert final : public Model {
 public:
  Bert(SlotTable& slots, const BertConfig& config);

  std::string_view kind() const override { return "bert"; }
  InputKind input_kind() const override { return InputKind::text; }
  Task task() const override { return config_.task; }
  // Throws UsageError for texts longer than max_tokens() and for label smoothing without classes.
  ForwardOut build(Graph& graph, const BuildOptions& options) const override;
  std::string head() const override {
    return config_.task == Task::span ? "qa_outputs" : "classifier";
  }
  int block_count() const override { return static_cast<int>(blocks_.size()); }
  int64_t max_tokens() const override { return config_.max_position_embeddings; }
  nlohmann::json config() const override { return config_.to_json(); }
  // LayerNorm.gamma and .beta of the first releases; no "bert." in files of the bare BertModel.
  std::vector<std::string> other_names(const std::string& name) const override;
  bool is_constant(std::string_view file_name) const override;

 private:
  std::vector<BertBlock*> make_blocks();
  ValueId logits(Graph& graph, ValueId hidden, ValueId rng) const;
  void add_loss(Graph& graph, const BuildOptions& options, ForwardOut& out) const;

  const BertConfig config_;
  BertEmbeddings& embeddings_;
  std::vector<BertBlock*> blocks_;
  Linear* pooler_;  // nullptr: span
  Linear& head_;
};

}  // namespace lithe::nn
