#include "nn/models/bert.h"

#include <cmath>

#include "nn/site_key.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/loss.h"

namespace lithe::nn {
namespace {

// `name` with its ending replaced, or "" when it has another.
std::string with_ending(const std::string& name, std::string_view from, std::string_view to) {
  return name.ends_with(from) ? name.substr(0, name.size() - from.size()) + std::string(to) : "";
}

}  // namespace

BertEmbeddings::BertEmbeddings(SlotTable& slots, std::string path, const BertConfig& c)
    : Module(slots, std::move(path)),
      padding_(c.pad_token_id),
      dropout_(c.hidden_dropout_prob),
      words_(child<Embedding>("word_embeddings", c.vocab_size, c.hidden_size,
                              Init::normal(c.initializer_range))),
      positions_(child<Embedding>("position_embeddings", c.max_position_embeddings, c.hidden_size,
                                  Init::normal(c.initializer_range))),
      token_types_(child<Embedding>("token_type_embeddings", c.type_vocab_size, c.hidden_size,
                                    Init::normal(c.initializer_range))),
      norm_(child<LayerNorm>("LayerNorm", c.hidden_size, c.layer_norm_eps)) {}

ValueId BertEmbeddings::forward(Graph& g, ValueId ids, ValueId token_types, ValueId rng,
                                DType compute) const {
  const ModuleScope scope(g, *this);
  const int64_t tokens = g.shape(ids)[1];
  const ValueId words = words_.forward(g, ids, padding_);
  const ValueId typed = add(g, words, token_types_.forward(g, token_types));
  const ValueId sum = add(g, typed, positions_.first_rows(g, tokens));
  const ValueId normed = norm_.forward(g, cast(g, sum, activation_dtype(g.dtype(sum), compute)));
  return site_dropout(g, normed, rng, dropout_, *this, 0);
}

BertBlock::BertBlock(SlotTable& slots, std::string path, const BertConfig& c)
    : Module(slots, std::move(path)),
      heads_(c.num_attention_heads),
      act_(c.hidden_act),
      hidden_dropout_(c.hidden_dropout_prob),
      attention_dropout_(c.attention_probs_dropout_prob),
      query_(child<Linear>("attention.self.query", c.hidden_size, c.hidden_size, true,
                           Init::normal(c.initializer_range))),
      key_(child<Linear>("attention.self.key", c.hidden_size, c.hidden_size, true,
                         Init::normal(c.initializer_range))),
      value_(child<Linear>("attention.self.value", c.hidden_size, c.hidden_size, true,
                           Init::normal(c.initializer_range))),
      attention_output_(child<Linear>("attention.output.dense", c.hidden_size, c.hidden_size, true,
                                      Init::normal(c.initializer_range))),
      attention_norm_(
          child<LayerNorm>("attention.output.LayerNorm", c.hidden_size, c.layer_norm_eps)),
      intermediate_(child<Linear>("intermediate.dense", c.hidden_size, c.intermediate_size, true,
                                  Init::normal(c.initializer_range))),
      output_(child<Linear>("output.dense", c.intermediate_size, c.hidden_size, true,
                            Init::normal(c.initializer_range))),
      output_norm_(child<LayerNorm>("output.LayerNorm", c.hidden_size, c.layer_norm_eps)) {}

ValueId BertBlock::forward(Graph& g, ValueId x, ValueId key_mask, ValueId rng) const {
  const ModuleScope scope(g, *this);
  const Shape shape = g.shape(x);
  const int64_t depth = shape[2] / heads_;
  const Shape split = {shape[0], shape[1], heads_, depth};

  const ValueId q = reshape(g, query_.forward(g, x), split);
  const ValueId k = reshape(g, key_.forward(g, x), split);
  const ValueId v = reshape(g, value_.forward(g, x), split);
  AttentionAttrs attrs;
  attrs.scale = 1.0 / std::sqrt(static_cast<double>(depth));
  if (rng != kNoValue) {
    attrs.dropout = attention_dropout_;
    attrs.dropout_key = site_key(*this, 0);
  }
  const ValueId context = reshape(g, attention(g, q, k, v, attrs, key_mask, rng), shape);
  const ValueId attended =
      site_dropout(g, attention_output_.forward(g, context), rng, hidden_dropout_, *this, 1);
  const ValueId middle = attention_norm_.forward(g, add(g, attended, x));

  const ValueId wide = intermediate_.forward(g, middle, act_);
  const ValueId out = site_dropout(g, output_.forward(g, wide), rng, hidden_dropout_, *this, 2);
  return output_norm_.forward(g, add(g, out, middle));
}

Bert::Bert(SlotTable& slots, const BertConfig& config)
    : Model(slots, ""),
      config_(config),
      embeddings_(child<BertEmbeddings>("bert.embeddings", config)),
      blocks_(make_blocks()),
      pooler_(config.task == Task::span
                  ? nullptr
                  : &child<Linear>("bert.pooler.dense", config.hidden_size, config.hidden_size,
                                   true, Init::normal(config.initializer_range))),
      head_(child<Linear>(config.task == Task::span ? "qa_outputs" : "classifier",
                          config.hidden_size, config.labels.count, true,
                          Init::normal(config.initializer_range))) {}

std::vector<BertBlock*> Bert::make_blocks() {
  std::vector<BertBlock*> blocks;
  blocks.reserve(static_cast<size_t>(config_.num_hidden_layers));
  for (int i = 0; i < config_.num_hidden_layers; ++i) {
    blocks.push_back(&block_child<BertBlock>(fmt::format("bert.encoder.layer.{}", i), i, config_));
  }
  return blocks;
}

ForwardOut Bert::build(Graph& g, const BuildOptions& options) const {
  if (options.tokens < 1 || options.tokens > max_tokens()) {
    throw UsageError("bert", "texts of {} tokens, the model takes 1 to {}; change the length",
                     options.tokens, max_tokens());
  }
  const Shape shape = {options.batch, options.tokens};
  const ValueId ids = g.input("input_ids", DType::i64, shape);
  const ValueId token_types = g.input("token_type_ids", DType::i64, shape);
  const ValueId mask = g.input("attention_mask", DType::boolean, shape);
  const bool dropout = options.training && (config_.hidden_dropout_prob > 0 ||
                                            config_.attention_probs_dropout_prob > 0 ||
                                            config_.head_dropout() > 0 || any_draws());
  const ValueId rng = dropout ? g.input("rng", DType::i64, {2}) : kNoValue;

  ForwardOut out;
  out.hidden = embeddings_.forward(g, ids, token_types, rng, options.compute);
  for (const BertBlock* block : blocks_) {
    out.hidden = block->forward(g, out.hidden, mask, rng);
  }
  out.logits = logits(g, out.hidden, rng);
  if (options.loss) {
    add_loss(g, options, out);
  }
  return out;
}

ValueId Bert::logits(Graph& g, ValueId hidden, ValueId rng) const {
  const DType dtype = logits_dtype(g.dtype(hidden));
  if (pooler_ == nullptr) {
    return transpose(g, cast(g, head_.forward(g, hidden), dtype), {2, 0, 1});
  }
  // Only the first token is pooled, so what backward keeps of it is [B, H].
  const Shape shape = g.shape(hidden);
  const ValueId first = reshape(g, slice(g, hidden, 1, 0, 1), {shape[0], shape[2]});
  const ValueId pooled = site_dropout(g, pooler_->forward(g, first, Activation::tanh), rng,
                                      config_.head_dropout(), *this, 0);
  return cast(g, head_.forward(g, pooled), dtype);
}

void Bert::add_loss(Graph& g, const BuildOptions& options, ForwardOut& out) const {
  const CrossEntropyAttrs attrs{.label_smoothing = options.label_smoothing};
  if (attrs.label_smoothing != 0 && task() != Task::classification) {
    throw UsageError("bert", "label smoothing {} for {}; it is for classification, set it to 0",
                     attrs.label_smoothing, task_name(task()));
  }
  switch (task()) {
    case Task::classification: {
      const ValueId labels = g.input("labels", DType::i64, {options.batch});
      out.loss = cross_entropy(g, out.logits, labels, attrs);
      out.correct = count_correct(g, out.logits, labels);
      break;
    }
    case Task::regression: {
      const ValueId labels = g.input("labels", DType::f32, {options.batch});
      out.loss =
          mse(g, reshape(g, out.logits, {options.batch}), cast(g, labels, g.dtype(out.logits)));
      break;
    }
    case Task::span:
      // Both ends in one: rows of the first tokens' logits, then of the last.
      out.loss =
          cross_entropy(g, out.logits, g.input("labels", DType::i64, {2, options.batch}), attrs);
      break;
  }
}

std::vector<std::string> Bert::other_names(const std::string& name) const {
  constexpr std::string_view kPrefix = "bert.";
  std::string old = with_ending(name, "LayerNorm.weight", "LayerNorm.gamma");
  if (old.empty()) {
    old = with_ending(name, "LayerNorm.bias", "LayerNorm.beta");
  }
  std::vector<std::string> out;
  if (!old.empty()) {
    out.push_back(old);
  }
  if (name.starts_with(kPrefix)) {
    out.push_back(name.substr(kPrefix.size()));
    if (!old.empty()) {
      out.push_back(old.substr(kPrefix.size()));
    }
  }
  return out;
}

bool Bert::is_constant(std::string_view file_name) const {
  return file_name == "bert.embeddings.position_ids" || file_name == "embeddings.position_ids";
}

}  // namespace lithe::nn
