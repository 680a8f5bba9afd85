// Vision transformer for image classification (Dosovitskiy et al. 2021), pre-norm, with the tensor
// names of Hugging Face's ViTForImageClassification.
#pragma once

#include "nn/config_reader.h"
#include "nn/layers.h"
#include "nn/model.h"
#include "recipe/schema.h"
#include "tensor/ops/activation.h"

#include <nlohmann/json.hpp>

namespace lithe::nn {

// Fields of config.json under their own names.
struct ViTConfig {
  int64_t hidden_size = 768;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 12;
  int64_t intermediate_size = 3072;
  Activation hidden_act = Activation::gelu;
  double hidden_dropout_prob = 0;
  double attention_probs_dropout_prob = 0;
  double initializer_range = 0.02;
  double layer_norm_eps = 1e-12;
  int64_t image_size = 224;
  int64_t patch_size = 16;
  int64_t num_channels = 3;
  bool qkv_bias = true;
  Labels labels{.count = 1000, .names = {}};

  // Throws FileError("config", ...) naming the field and the accepted values.
  static ViTConfig from_json(const nlohmann::json& config);
  nlohmann::json to_json() const;
  static recipe::Schema options();  // the same fields, for recipes
  int64_t tokens() const { return (image_size / patch_size) * (image_size / patch_size) + 1; }
};

class ViTEmbeddings final : public Module {
 public:
  ViTEmbeddings(SlotTable& slots, std::string path, const ViTConfig& config);
  // pixels [B, S, S, C] -> [B, T, H] in the same dtype.
  ValueId forward(Graph& graph, ValueId pixels, ValueId rng) const;
  SlotId cls_token() const { return cls_token_; }

 private:
  const double dropout_;
  SlotId cls_token_;
  SlotId position_embeddings_;
  Conv2d& projection_;
};

class ViTBlock final : public Module {
 public:
  ViTBlock(SlotTable& slots, std::string path, const ViTConfig& config);
  std::string_view kind() const override { return "block"; }
  // x [B, T, H] -> [B, T, H].
  ValueId forward(Graph& graph, ValueId x, ValueId rng) const;

 private:
  const int64_t heads_;
  const Activation act_;
  const double hidden_dropout_;
  const double attention_dropout_;
  Linear& query_;
  Linear& key_;
  Linear& value_;
  Linear& attention_output_;
  Linear& intermediate_;
  Linear& output_;
  LayerNorm& norm_before_;
  LayerNorm& norm_after_;
};

class ViT final : public Model {
 public:
  ViT(SlotTable& slots, const ViTConfig& config);

  std::string_view kind() const override { return "vit"; }
  InputKind input_kind() const override { return InputKind::images; }
  Task task() const override { return Task::classification; }
  ForwardOut build(Graph& graph, const BuildOptions& options) const override;
  std::string head() const override { return "classifier"; }
  int block_count() const override { return static_cast<int>(blocks_.size()); }
  nlohmann::json config() const override { return config_.to_json(); }

 private:
  std::vector<ViTBlock*> make_blocks();

  const ViTConfig config_;
  ViTEmbeddings& embeddings_;
  std::vector<ViTBlock*> blocks_;
  LayerNorm& norm_;
  Linear& classifier_;
};

}  // namespace lithe::nn
