// config.json of BERT: what is read, which task it means, and what is refused by name.
#include <doctest/doctest.h>

#include "nn/model_kinds.h"
#include "nn/models/bert.h"
#include "nn/models/vit.h"

using namespace lithe;  // NOLINT
using nlohmann::json;

namespace {

std::string refusal(const json& config) {
  try {
    nn::BertConfig::from_json(config);
  } catch (const FileError& e) {
    return e.what();
  }
  return "accepted";
}

bool contains(const std::string& text, std::string_view part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("architectures and labels decide the task") {
  using nn::Task;
  const auto task = [](const json& config) { return nn::BertConfig::from_json(config).task; };
  CHECK(task(json::object()) == Task::classification);
  CHECK(task({{"architectures", {"BertModel"}}}) == Task::classification);
  CHECK(task({{"architectures", {"BertForQuestionAnswering"}}}) == Task::span);
  CHECK(task({{"architectures", "BertForQuestionAnswering"}}) == Task::span);  // from a recipe
  CHECK(task({{"num_labels", 1}}) == Task::regression);
  CHECK(task({{"num_labels", 1}, {"problem_type", "regression"}}) == Task::regression);
  CHECK(task({{"problem_type", nullptr}}) == Task::classification);

  CHECK(contains(refusal({{"problem_type", "regression"}}), "num_labels 2"));
  CHECK(contains(refusal({{"problem_type", "single_label_classification"}, {"num_labels", 1}}),
                 "num_labels 1"));
  CHECK(contains(refusal({{"problem_type", "multi_label_classification"}}),
                 "multi_label_classification"));
  CHECK(contains(refusal({{"architectures", {"BertForQuestionAnswering"}}, {"num_labels", 3}}),
                 "num_labels 3"));
}

TEST_CASE("what BERT here is not is refused by name") {
  CHECK(contains(refusal({{"position_embedding_type", "relative_key"}}),
                 "position_embedding_type is \"relative_key\""));
  CHECK(refusal({{"position_embedding_type", "absolute"}}) == "accepted");
  CHECK(contains(refusal({{"is_decoder", true}}), "is_decoder"));
  CHECK(contains(refusal({{"add_cross_attention", true}}), "add_cross_attention"));
  CHECK(contains(refusal({{"hidden_act", "swish2"}}), "hidden_act"));
  CHECK(contains(refusal({{"hidden_size", 100}, {"num_attention_heads", 12}}), "hidden_size 100"));
  CHECK(contains(refusal({{"pad_token_id", 60}, {"vocab_size", 60}}), "pad_token_id"));
  CHECK(contains(refusal({{"pad_token_id", -1}}), "pad_token_id"));
  CHECK(contains(refusal({{"classifier_dropout", 1.0}}), "classifier_dropout"));
  CHECK(contains(refusal({{"num_hidden_layers", 1 << 20}}), "num_hidden_layers"));
  CHECK(contains(refusal({{"architectures", {7}}}), "architectures"));
  CHECK(contains(refusal({{"position_embedding_type", 7}}), "position_embedding_type"));
  CHECK(contains(refusal({{"id2label", {{"0", "a"}, {"2", "b"}}}}), "no name for \"1\""));
  CHECK(contains(refusal({{"id2label", {{"0", 7}, {"1", "b"}}}}), "no name for \"0\""));
  CHECK(contains(refusal({{"id2label", json::object()}}), "id2label is empty"));
  // A hostile value is shown in part only.
  CHECK(refusal({{"hidden_act", std::string(100000, 'x')}}).size() < 300);
  CHECK(contains(refusal({{"hidden_act", std::string("\xff\xfe")}}), "hidden_act"));
}

TEST_CASE("fields survive a round trip, labels keep their names") {
  const json names = {{"0", "negative"}, {"1", "neutral"}, {"2", "positive"}};
  const json config = {{"model_type", "bert"},         {"hidden_size", 48},
                       {"hidden_act", "gelu_new"},     {"classifier_dropout", 0.25},
                       {"hidden_dropout_prob", 0.125}, {"id2label", names}};
  const nn::BertConfig read = nn::BertConfig::from_json(config);
  CHECK(read.head_dropout() == 0.25);
  CHECK(nn::BertConfig().head_dropout() == 0.1);
  const json written = read.to_json();
  for (const auto& [key, value] : config.items()) {
    CHECK(written.at(key) == value);
  }
  CHECK(written.at("label2id") == json({{"negative", 0}, {"neutral", 1}, {"positive", 2}}));
  CHECK(written.at("architectures") == json::array({"BertForSequenceClassification"}));
  CHECK(nn::BertConfig::from_json(written).to_json() == written);

  // Of another number of labels the names are another task's.
  json other = config;
  other["num_labels"] = 2;
  CHECK(nn::BertConfig::from_json(other).to_json().at("id2label") ==
        json({{"0", "LABEL_0"}, {"1", "LABEL_1"}}));
  CHECK(nn::ViTConfig::from_json({{"id2label", names}}).to_json().at("id2label") == names);
}

TEST_CASE("recipes set BERT's fields over config.json") {
  recipe::Schema schema;
  schema.add({.key = "type", .type = recipe::Type::string});
  schema.add({.key = "path", .type = recipe::Type::path});
  for (const nn::ModelKind& kind : nn::model_kinds()) {
    schema.section(std::string(kind.type), kind.options(), "");
  }
  const recipe::Recipe recipe = recipe::Recipe::parse(
      "type: bert\nbert: {architectures: BertForQuestionAnswering, hidden_size: 24, "
      "classifier_dropout: 0.5}",
      "recipe.yaml", schema);
  const nn::BertConfig c = nn::BertConfig::from_json(nn::model_config(recipe));
  CHECK(c.task == nn::Task::span);
  CHECK(c.hidden_size == 24);
  CHECK(c.head_dropout() == 0.5);
}
