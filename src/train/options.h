// Every key of a `train` recipe.
#pragma once

#include "recipe/recipe.h"

namespace lithe {

recipe::Schema train_options();

// Recipe::load with the keys of `train`, and what `codecs` stands for filled in: codec.preset, and
// the form of attention that the preset is made for unless the recipe names one. Throws what
// Recipe::load throws, and UsageError where codecs and codec.preset name different presets.
recipe::Recipe load_train_recipe(const std::string& path,
                                 std::span<const std::string> overrides = {});

}  // namespace lithe
