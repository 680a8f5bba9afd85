#include "train/task.h"

#include <algorithm>
#include <array>
#include <optional>

#include "data/text_examples.h"
#include "nn/config_reader.h"
#include "nn/model_kinds.h"

namespace lithe {
namespace {

struct Head {
  std::string_view model_type;
  nn::Task task;
  std::string_view architecture;  // as config.json names it
};
constexpr std::array kHeads = {
    Head{"bert", nn::Task::classification, "BertForSequenceClassification"},
    Head{"bert", nn::Task::regression, "BertForSequenceClassification"},
    Head{"bert", nn::Task::span, "BertForQuestionAnswering"},
    Head{"vit", nn::Task::classification, "ViTForImageClassification"},
};

// What the recipe asks for; nothing: what config.json says.
std::optional<nn::Task> wanted_task(const recipe::Recipe& recipe) {
  const std::string name = recipe.string("model.task");
  for (const nn::Task task : {nn::Task::classification, nn::Task::regression, nn::Task::span}) {
    if (name == nn::task_name(task)) {
      return task;
    }
  }
  const std::string kind = recipe.string("data.kind");
  if (kind == "squad") {
    return nn::Task::span;
  }
  if (kind == "glue") {
    return glue_task(recipe.string("data.task")).label_names.empty() ? nn::Task::regression
                                                                     : nn::Task::classification;
  }
  if (kind == "table" && !recipe.strings("data.labels").empty()) {
    return nn::Task::classification;
  }
  return std::nullopt;
}

std::vector<std::string> label_names(const recipe::Recipe& recipe) {
  if (recipe.string("data.kind") == "glue") {
    const auto& names = glue_task(recipe.string("data.task")).label_names;
    return {names.begin(), names.end()};
  }
  return recipe.strings("data.labels");
}

void set_labels(nlohmann::json& config, const std::vector<std::string>& names) {
  nn::write_labels(config, {.count = static_cast<int64_t>(names.size()), .names = names});
  config.erase("num_labels");
}

}  // namespace

nlohmann::json experiment_config(const recipe::Recipe& recipe) {
  nlohmann::json config = nn::model_config(recipe.section("model"));
  const std::optional<nn::Task> task = wanted_task(recipe);
  const auto type = config.find("model_type");
  if (!task || type == config.end() || !type->is_string()) {
    return config;
  }
  const std::string name = *type;
  const auto* const head = std::find_if(kHeads.begin(), kHeads.end(), [&](const Head& h) {
    return h.model_type == name && h.task == *task;
  });
  if (head == kHeads.end()) {
    return config;  // check_task() tells what does not fit
  }
  config["architectures"] = {head->architecture};
  config.erase("problem_type");
  if (*task == nn::Task::regression) {
    set_labels(config, {"score"});
    config["problem_type"] = "regression";
  } else if (*task == nn::Task::span) {
    set_labels(config, {"LABEL_0", "LABEL_1"});  // first and last token
  } else {
    const std::vector<std::string> names = label_names(recipe);
    if (names.size() == 1) {
      throw UsageError("data.labels", "{}: '{}' alone is nothing to choose from; name two or more",
                       recipe.where("data.labels"), names.front());
    }
    if (!names.empty() && !recipe.given(fmt::format("model.{}.num_labels", name))) {
      set_labels(config, names);
    }
  }
  return config;
}

void check_task(const recipe::Recipe& recipe, const nn::Model& model) {
  const std::string kind = recipe.string("data.kind");
  const std::optional<nn::Task> wanted = wanted_task(recipe);
  const bool text_data = kind == "glue" || kind == "table" || kind == "squad";
  const bool text_model = model.input_kind() == nn::InputKind::text;
  if (kind != "synthetic" && text_data != text_model) {
    throw UsageError("data.kind", "{}: '{}' holds {}, a {} model takes {}; change one of them",
                     recipe.where("data.kind"), kind, text_data ? "texts" : "images", model.kind(),
                     text_model ? "texts" : "images");
  }
  if (wanted && *wanted != model.task()) {
    throw UsageError("model.task", "{}: a {} model has no head for {}; use another model or data",
                     recipe.where("model.task"), model.kind(), nn::task_name(*wanted));
  }
  if ((kind == "squad") != (model.task() == nn::Task::span) && kind != "synthetic") {
    throw UsageError("data.kind", "{}: '{}' does not hold what a head for {} learns from",
                     recipe.where("data.kind"), kind, nn::task_name(model.task()));
  }
}

int64_t most_tokens(const recipe::Recipe& recipe, const nn::Model& model) {
  if (model.input_kind() != nn::InputKind::text) {
    return 0;
  }
  const int64_t tokens = recipe.integer("data.max_length");
  if (tokens > model.max_tokens()) {
    throw UsageError("data.max_length", "{}: {} tokens, the model takes at most {}; lower it",
                     recipe.where("data.max_length"), tokens, model.max_tokens());
  }
  return tokens;
}

}  // namespace lithe
