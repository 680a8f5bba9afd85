#include "nn/model_kinds.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "nn/config_reader.h"
#include "nn/models/bert.h"
#include "nn/models/vit.h"

namespace lithe::nn {
namespace {

std::unique_ptr<Model> make_vit(SlotTable& slots, const nlohmann::json& config) {
  return std::make_unique<ViT>(slots, ViTConfig::from_json(config));
}

std::unique_ptr<Model> make_bert(SlotTable& slots, const nlohmann::json& config) {
  return std::make_unique<Bert>(slots, BertConfig::from_json(config));
}

constexpr std::array<ModelKind, 2> kKinds = {{
    {"bert", make_bert, BertConfig::options},
    {"vit", make_vit, ViTConfig::options},
}};

nlohmann::json value_of(const recipe::Recipe& recipe, const recipe::Option& option,
                        const std::string& key) {
  switch (option.type) {
    case recipe::Type::boolean:
      return recipe.boolean(key);
    case recipe::Type::integer:
      return recipe.integer(key);
    case recipe::Type::number:
      return recipe.number(key);
    default:
      return recipe.string(key);
  }
}

// Empty for a config without one, or with one that is no text.
std::string model_type(const nlohmann::json& config) {
  const auto field = config.is_object() ? config.find("model_type") : config.end();
  return field != config.end() && field->is_string() ? field->get<std::string>() : "";
}

}  // namespace

std::span<const ModelKind> model_kinds() { return kKinds; }

std::vector<std::string> model_type_names() {
  std::vector<std::string> names;
  names.reserve(kKinds.size());
  for (const ModelKind& kind : kKinds) {
    names.emplace_back(kind.type);
  }
  return names;
}

nlohmann::json model_config(const recipe::Recipe& model) {
  nlohmann::json config = nlohmann::json::object();
  if (model.has("path")) {
    config = read_config(std::filesystem::path(model.string("path")) / "config.json", "model.path");
  } else {
    config["model_type"] = model.string("type");
  }
  for (const ModelKind& kind : kKinds) {
    if (model_type(config) != kind.type) {
      continue;
    }
    const recipe::Schema fields = kind.options();
    for (const recipe::Option& option : fields.options()) {
      const std::string key = fmt::format("{}.{}", kind.type, option.key);
      if (model.given(key)) {
        config[option.key] = value_of(model, option, key);
      }
    }
  }
  return config;
}

std::unique_ptr<Model> make_model(SlotTable& slots, const nlohmann::json& config) {
  const std::string type = model_type(config);
  for (const ModelKind& kind : kKinds) {
    if (kind.type == type) {
      return kind.make(slots, config);
    }
  }
  throw FileError("config", "model_type is '{}'; known are: {}", type,
                  fmt::join(model_type_names(), ", "));
}

}  // namespace lithe::nn
