// The architectures the engine knows. Registration of a model is its line in model_kinds.cpp.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/model.h"
#include "recipe/recipe.h"

namespace lithe::nn {

struct ModelKind {
  std::string_view type;  // model_type of config.json
  std::unique_ptr<Model> (*make)(SlotTable& slots, const nlohmann::json& config);
  // Fields of config.json that a recipe may set; without defaults, so that only given ones count.
  recipe::Schema (*options)();
};

std::span<const ModelKind> model_kinds();
std::vector<std::string> model_type_names();

// The config.json that a recipe's `model` section describes: the file in model.path, if any, with
// the fields of `model.<type>` over it.
nlohmann::json model_config(const recipe::Recipe& model);

// Makes the model of a config.json. Weights are declared in `slots` and filled later. Throws
// FileError naming the field that is missing or unsupported.
std::unique_ptr<Model> make_model(SlotTable& slots, const nlohmann::json& config);

}  // namespace lithe::nn
