// All passes that a recipe can name, in the order in which they run.
#pragma once

#include <span>

#include "tensor/graph/pass.h"

namespace lithe {

// Registration of a pass is its line in passes.cpp.
std::span<const PassKind* const> pass_kinds();

// Adds an optional section for each pass to a program's schema.
void add_pass_options(recipe::Schema& schema);

// The passes that the recipe switches on, except the one named `without`.
PassManager make_passes(const recipe::Recipe& recipe, std::string_view without = "");

}  // namespace lithe
