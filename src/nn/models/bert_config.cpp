#include <nlohmann/json.hpp>

#include "nn/config_reader.h"
#include "nn/models/bert.h"

namespace lithe::nn {
namespace {

// Building a graph costs time and memory a block, before anything is known to fit.
constexpr int64_t kMostBlocks = 1024;

constexpr std::string_view kSpan = "BertForQuestionAnswering";
constexpr std::string_view kPooled = "BertForSequenceClassification";
constexpr std::string_view kRegression = "regression";
constexpr std::string_view kClassification = "single_label_classification";

// Variants of BERT that share its model_type but not its graph.
void refuse_variants(const ConfigReader& read) {
  std::string positions = "absolute";
  read.text("position_embedding_type", positions);
  if (positions != "absolute") {
    throw FileError("config", "position_embedding_type is \"{}\"; only absolute is supported",
                    positions);
  }
  for (const char* key : {"is_decoder", "add_cross_attention"}) {
    bool on = false;
    read.flag(key, on);
    if (on) {
      throw FileError("config", "{} is true; only encoders are supported, set it to false", key);
    }
  }
}

Task read_task(const ConfigReader& read, const Labels& labels) {
  std::string architecture(kPooled);
  read.first_text("architectures", architecture);
  if (architecture == kSpan) {
    if (labels.count != 2) {
      throw FileError("config", "{} with num_labels {}; a span has 2, its first and last token",
                      kSpan, labels.count);
    }
    return Task::span;
  }
  std::string problem(labels.count == 1 ? kRegression : kClassification);
  read.text("problem_type", problem);
  if (problem != kRegression && problem != kClassification) {
    throw FileError("config", "problem_type is \"{}\"; known are {}, {}", problem, kRegression,
                    kClassification);
  }
  const bool regression = problem == kRegression;
  if (regression != (labels.count == 1)) {
    throw FileError("config", "problem_type {} with num_labels {}; {}", problem, labels.count,
                    regression ? "a regression has 1" : "a classification has 2 or more");
  }
  return regression ? Task::regression : Task::classification;
}

}  // namespace

BertConfig BertConfig::from_json(const nlohmann::json& config) {
  BertConfig c;
  const ConfigReader read(config);
  refuse_variants(read);
  read.size("vocab_size", c.vocab_size);
  read.size("hidden_size", c.hidden_size);
  read.size("num_hidden_layers", c.num_hidden_layers, kMostBlocks);
  read.size("num_attention_heads", c.num_attention_heads);
  read.size("intermediate_size", c.intermediate_size);
  read.activation("hidden_act", c.hidden_act);
  read.probability("hidden_dropout_prob", c.hidden_dropout_prob);
  read.probability("attention_probs_dropout_prob", c.attention_probs_dropout_prob);
  double head_dropout = -1;
  read.probability("classifier_dropout", head_dropout);
  if (head_dropout >= 0) {
    c.classifier_dropout = head_dropout;
  }
  read.size("max_position_embeddings", c.max_position_embeddings);
  read.size("type_vocab_size", c.type_vocab_size);
  read.positive("initializer_range", c.initializer_range);
  read.positive("layer_norm_eps", c.layer_norm_eps);
  read.index("pad_token_id", c.pad_token_id, c.vocab_size);
  c.labels = read.labels(c.labels.count);
  c.task = read_task(read, c.labels);
  if (c.hidden_size % c.num_attention_heads != 0) {
    throw FileError("config", "hidden_size {} is no multiple of num_attention_heads {}; change one",
                    c.hidden_size, c.num_attention_heads);
  }
  return c;
}

recipe::Schema BertConfig::options() {
  using recipe::Type;
  recipe::Schema schema;
  for (const char* key :
       {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "max_position_embeddings", "type_vocab_size", "num_labels"}) {
    schema.add({.key = key, .type = Type::integer, .help = "as in config.json", .min = 1});
  }
  schema.add({.key = "pad_token_id", .type = Type::integer, .help = "as in config.json", .min = 0});
  for (const char* key : {"hidden_dropout_prob", "attention_probs_dropout_prob",
                          "classifier_dropout", "initializer_range", "layer_norm_eps"}) {
    schema.add({.key = key, .type = Type::number, .help = "as in config.json", .min = 0});
  }
  schema.add({.key = "hidden_act", .type = Type::string, .help = "as in config.json"});
  schema.add({.key = "architectures",
              .type = Type::string,
              .help = "the head, as in config.json",
              .choices = {std::string(kPooled), std::string(kSpan)}});
  schema.add({.key = "problem_type",
              .type = Type::string,
              .help = "as in config.json",
              .choices = {std::string(kClassification), std::string(kRegression)}});
  return schema;
}

nlohmann::json BertConfig::to_json() const {
  nlohmann::json out = {{"architectures", {task == Task::span ? kSpan : kPooled}},
                        {"model_type", "bert"},
                        {"vocab_size", vocab_size},
                        {"hidden_size", hidden_size},
                        {"num_hidden_layers", num_hidden_layers},
                        {"num_attention_heads", num_attention_heads},
                        {"intermediate_size", intermediate_size},
                        {"hidden_act", activation_name(hidden_act)},
                        {"hidden_dropout_prob", hidden_dropout_prob},
                        {"attention_probs_dropout_prob", attention_probs_dropout_prob},
                        {"classifier_dropout", nullptr},
                        {"max_position_embeddings", max_position_embeddings},
                        {"type_vocab_size", type_vocab_size},
                        {"position_embedding_type", "absolute"},
                        {"initializer_range", initializer_range},
                        {"layer_norm_eps", layer_norm_eps},
                        {"pad_token_id", pad_token_id}};
  if (classifier_dropout) {
    out["classifier_dropout"] = *classifier_dropout;
  }
  if (task != Task::span) {
    out["problem_type"] = task == Task::regression ? kRegression : kClassification;
  }
  write_labels(out, labels);
  return out;
}

}  // namespace lithe::nn
