#include "nn/models/vit.h"

#include <array>
#include <cmath>

#include <nlohmann/json.hpp>

#include "nn/site_key.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/loss.h"
#include "tensor/ops/reduce.h"

namespace lithe::nn {

ViTEmbeddings::ViTEmbeddings(SlotTable& slots, std::string path, const ViTConfig& config)
    : Module(slots, std::move(path)),
      dropout_(config.hidden_dropout_prob),
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
  const DType dtype = g.dtype(pixels);
  const ValueId grid = projection_.forward(g, pixels);  // [B, S/P, S/P, H]
  const Shape shape = g.shape(grid);
  const ValueId patches = reshape(g, grid, {shape[0], shape[1] * shape[2], shape[3]});
  const ValueId cls = broadcast_to(g, leaf_as(g, cls_token_, dtype), {shape[0], 1, shape[3]});
  const std::array<ValueId, 2> parts = {cls, patches};
  const ValueId tokens = add(g, concat(g, parts, 1), leaf_as(g, position_embeddings_, dtype));
  return site_dropout(g, tokens, rng, dropout_, *this, 0);
}

ViTBlock::ViTBlock(SlotTable& slots, std::string path, const ViTConfig& c)
    : Module(slots, std::move(path)),
      heads_(c.num_attention_heads),
      act_(c.hidden_act),
      hidden_dropout_(c.hidden_dropout_prob),
      attention_dropout_(c.attention_probs_dropout_prob),
      query_(child<Linear>("attention.attention.query", c.hidden_size, c.hidden_size, c.qkv_bias,
                           Init::normal(c.initializer_range))),
      key_(child<Linear>("attention.attention.key", c.hidden_size, c.hidden_size, c.qkv_bias,
                         Init::normal(c.initializer_range))),
      value_(child<Linear>("attention.attention.value", c.hidden_size, c.hidden_size, c.qkv_bias,
                           Init::normal(c.initializer_range))),
      attention_output_(child<Linear>("attention.output.dense", c.hidden_size, c.hidden_size, true,
                                      Init::normal(c.initializer_range))),
      intermediate_(child<Linear>("intermediate.dense", c.hidden_size, c.intermediate_size, true,
                                  Init::normal(c.initializer_range))),
      output_(child<Linear>("output.dense", c.intermediate_size, c.hidden_size, true,
                            Init::normal(c.initializer_range))),
      norm_before_(child<LayerNorm>("layernorm_before", c.hidden_size, c.layer_norm_eps)),
      norm_after_(child<LayerNorm>("layernorm_after", c.hidden_size, c.layer_norm_eps)) {}

ValueId ViTBlock::forward(Graph& g, ValueId x, ValueId rng) const {
  const ModuleScope scope(g, *this);
  const Shape shape = g.shape(x);
  const int64_t depth = shape[2] / heads_;
  const Shape split = {shape[0], shape[1], heads_, depth};

  const ValueId normed = norm_before_.forward(g, x);
  const ValueId q = reshape(g, query_.forward(g, normed), split);
  const ValueId k = reshape(g, key_.forward(g, normed), split);
  const ValueId v = reshape(g, value_.forward(g, normed), split);
  AttentionAttrs attrs;
  attrs.scale = 1.0 / std::sqrt(static_cast<double>(depth));
  if (rng != kNoValue) {
    attrs.dropout = attention_dropout_;
    attrs.dropout_key = site_key(*this, 0);
  }
  const ValueId context = attention(g, q, k, v, attrs, kNoValue, rng);
  const ValueId attended = site_dropout(g, attention_output_.forward(g, reshape(g, context, shape)),
                                        rng, hidden_dropout_, *this, 1);
  const ValueId middle = add(g, attended, x);

  const ValueId wide = intermediate_.forward(g, norm_after_.forward(g, middle));
  const ValueId out = site_dropout(g, output_.forward(g, activation(g, wide, act_)), rng,
                                   hidden_dropout_, *this, 2);
  return add(g, out, middle);
}

ViT::ViT(SlotTable& slots, const ViTConfig& config)
    : Model(slots, ""),
      config_(config),
      embeddings_(child<ViTEmbeddings>("vit.embeddings", config)),
      blocks_(make_blocks()),
      norm_(child<LayerNorm>("vit.layernorm", config.hidden_size, config.layer_norm_eps)),
      classifier_(child<Linear>("classifier", config.hidden_size, config.labels.count, true,
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
  const DType weights = slots()[embeddings_.cls_token()].dtype;
  ValueId pixels =
      g.input("pixels", DType::f32,
              {options.batch, config_.image_size, config_.image_size, config_.num_channels});
  const bool dropout =
      options.training &&
      (config_.hidden_dropout_prob > 0 || config_.attention_probs_dropout_prob > 0 || any_draws());
  const ValueId rng = dropout ? g.input("rng", DType::i64, {2}) : kNoValue;

  pixels = cast(g, pixels, activation_dtype(weights, options.compute));
  ValueId x = embeddings_.forward(g, pixels, rng);
  for (const ViTBlock* block : blocks_) {
    x = block->forward(g, x, rng);
  }
  // Only the class token is classified, so the norm and what backward keeps of it are [B, H].
  const ValueId token = reshape(g, slice(g, x, 1, 0, 1), {options.batch, config_.hidden_size});
  ForwardOut out;
  out.logits = cast(g, classifier_.forward(g, norm_.forward(g, token)), logits_dtype(weights));
  if (options.loss) {
    const ValueId labels = g.input("labels", DType::i64, {options.batch});
    out.loss = cross_entropy(g, out.logits, labels, {.label_smoothing = options.label_smoothing});
    out.correct = count_correct(g, out.logits, labels);
  }
  return out;
}

}  // namespace lithe::nn
