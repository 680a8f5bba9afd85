// Every key of a `train` recipe.
#pragma once

#include "recipe/schema.h"

namespace lithe {

recipe::Schema train_options();

}  // namespace lithe
