#include "nn/models/vit.h"

#include <array>
#include <cmath>

#include <nlohmann/json.hpp>

#include "tensor/ops/attention.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/loss.h"
#include "tensor/ops/reduce.h"

namespace lithe::nn {
namespace {

// A dropout site's key depends on its place in the model only.
uint64_t site_key(const Module& module, uint64_t index) {
  uint64_t h = 1469598103934665603ull;
  for (char c : module.path()) {
    h = (h ^ static_cast<uint8_t>(c)) * 1099511628211ull;
  }
  return mix(h, index);
}

ValueId maybe_dropout(Graph& g, ValueId x, ValueId rng, double p, uint64_t key) {
  return rng == kNoValue || p == 0 ? x : dropout(g, x, rng, {p, key});
}

}  // namespace

ViTEmbeddings::ViTEmbeddings(SlotTable& slots, std::string path, const ViTConfig& config)
    : Module(slots, std::move(path)),
      config_(config),
      cls_token_(add_parameter("cls_token", {1, 1, config.hidden_size},
                               Init::normal(config.initializer_range))),
      position_embeddings_(add_parameter("position_embeddings",
                                         {1, config.tokens(), config.hidden_size},
                                         Init::normal(config.initializer_range))),
      projection_(child<Conv2d>(
          "patch_embeddings.projection", config.num_channels, config.hidden_size, config.patch_size,
          static_cast<int>(config.patch_size), 0, Init::normal(config.initializer_range))) {}

ValueId ViTEmbeddings::forward(Graph& g, ValueId pixels, ValueId rng) const {
  const ModuleScope scope(g, *this);
  const int64_t batch = g.shape(pixels)[0];
  const int64_t hidden = config_.hidden_size;
  const ValueId patches =
      reshape(g, projection_.forward(g, pixels), {batch, config_.tokens() - 1, hidden});
  const ValueId cls = broadcast_to(g, g.leaf(cls_token_), {batch, 1, hidden});
  const std::array<ValueId, 2> parts = {cls, patches};
  const ValueId tokens = add(g, concat(g, parts, 1), g.leaf(position_embeddings_));
  return maybe_dropout(g, tokens, rng, config_.hidden_dropout_prob, site_key(*this, 0));
}

ViTBlock::ViTBlock(SlotTable& slots, std::string path, const ViTConfig& config)
    : Module(slots, std::move(path)),
      config_(config),
      query_(linear("attention.attention.query", config.hidden_size, config.hidden_size,
                    config.qkv_bias)),
      key_(linear("attention.attention.key", config.hidden_size, config.hidden_size,
                  config.qkv_bias)),
      value_(linear("attention.attention.value", config.hidden_size, config.hidden_size,
                    config.qkv_bias)),
      attention_output_(
          linear("attention.output.dense", config.hidden_size, config.hidden_size, true)),
      intermediate_(
          linear("intermediate.dense", config.hidden_size, config.intermediate_size, true)),
      output_(linear("output.dense", config.intermediate_size, config.hidden_size, true)),
      norm_before_(child<LayerNorm>("layernorm_before", config.hidden_size, config.layer_norm_eps)),
      norm_after_(child<LayerNorm>("layernorm_after", config.hidden_size, config.layer_norm_eps)) {}

Linear& ViTBlock::linear(std::string_view name, int64_t in, int64_t out, bool bias) {
  return child<Linear>(name, in, out, bias, Init::normal(config_.initializer_range));
}

ValueId ViTBlock::forward(Graph& g, ValueId x, ValueId rng) const {
  const ModuleScope scope(g, *this);
  const int64_t heads = config_.num_attention_heads;
  const int64_t depth = config_.hidden_size / heads;
  const Shape split = {g.shape(x)[0], g.shape(x)[1], heads, depth};

  const ValueId normed = norm_before_.forward(g, x);
  const ValueId q = reshape(g, query_.forward(g, normed), split);
  const ValueId k = reshape(g, key_.forward(g, normed), split);
  const ValueId v = reshape(g, value_.forward(g, normed), split);
  AttentionAttrs attrs;
  attrs.scale = 1.0 / std::sqrt(static_cast<double>(depth));
  if (rng != kNoValue) {
    attrs.dropout = config_.attention_probs_dropout_prob;
    attrs.dropout_key = site_key(*this, 0);
  }
  const ValueId context =
      attention(g, q, k, v, attrs, kNoValue, attrs.dropout > 0 ? rng : kNoValue);
  const ValueId attended =
      maybe_dropout(g, attention_output_.forward(g, reshape(g, context, g.shape(x))), rng,
                    config_.hidden_dropout_prob, site_key(*this, 1));
  const ValueId middle = add(g, attended, x);

  const ValueId wide = intermediate_.forward(g, norm_after_.forward(g, middle));
  const ValueId out = maybe_dropout(g, output_.forward(g, activation(g, wide, config_.hidden_act)),
                                    rng, config_.hidden_dropout_prob, site_key(*this, 2));
  return add(g, out, middle);
}

ViT::ViT(SlotTable& slots, const ViTConfig& config)
    : Model(slots, ""),
      config_(config),
      embeddings_(child<ViTEmbeddings>("vit.embeddings", config)),
      blocks_(make_blocks()),
      norm_(child<LayerNorm>("vit.layernorm", config.hidden_size, config.layer_norm_eps)),
      classifier_(child<Linear>("classifier", config.hidden_size, config.num_labels, true,
                                Init::normal(config.initializer_range))) {}

std::vector<ViTBlock*> ViT::make_blocks() {
  std::vector<ViTBlock*> blocks;
  blocks.reserve(static_cast<size_t>(config_.num_hidden_layers));
  for (int i = 0; i < config_.num_hidden_layers; ++i) {
    blocks.push_back(&block_child<ViTBlock>(fmt::format("vit.encoder.layer.{}", i), i, config_));
  }
  return blocks;
}

ForwardOut ViT::build(Graph& g, const BuildOptions& options) const {
  const ValueId pixels =
      g.input("pixels", DType::f32,
              {options.batch, config_.image_size, config_.image_size, config_.num_channels});
  const bool dropout = options.training && (config_.hidden_dropout_prob > 0 ||
                                            config_.attention_probs_dropout_prob > 0);
  const ValueId rng = dropout ? g.input("rng", DType::i64, {2}) : kNoValue;

  ValueId x = embeddings_.forward(g, pixels, rng);
  for (const ViTBlock* block : blocks_) {
    x = block->forward(g, x, rng);
  }
  // Only the class token is classified, so the norm and what backward keeps of it are [B, H].
  const ValueId token = reshape(g, slice(g, x, 1, 0, 1), {options.batch, config_.hidden_size});
  ForwardOut out;
  out.logits = classifier_.forward(g, norm_.forward(g, token));
  if (options.loss) {
    const ValueId labels = g.input("labels", DType::i64, {options.batch});
    out.loss = cross_entropy(g, out.logits, labels, {.label_smoothing = options.label_smoothing});
    out.correct = count_correct(g, out.logits, labels);
  }
  return out;
}

}  // namespace lithe::nn
