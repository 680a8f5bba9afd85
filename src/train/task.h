// What a run predicts: the head that the recipe's data asks of the model.
#pragma once

#include <nlohmann/json.hpp>

#include "nn/model.h"
#include "recipe/recipe.h"

namespace lithe {

// The config.json of the run's model: that of model.path and the recipe's fields over it, with the
// head (architectures, labels) that model.task and the data ask for.
nlohmann::json experiment_config(const recipe::Recipe& recipe);

// Throws UsageError when the data cannot feed the model, naming both and the way out.
void check_task(const recipe::Recipe& recipe, const nn::Model& model);

// Length of the longest texts that the recipe lets through; 0 for image models. Throws UsageError
// when the model cannot take so many.
int64_t most_tokens(const recipe::Recipe& recipe, const nn::Model& model);

}  // namespace lithe
