// How recipes and PEFT name modules: a pattern with * or ? is matched against the whole dotted
// path; without, it is the path or its last parts ("query", "output.dense").
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nn/layers.h"
#include "nn/model.h"

namespace lithe {

bool names_module(std::string_view pattern, std::string_view path);
bool names_module(const std::vector<std::string>& patterns, std::string_view path);

// The linear layers that patterns choose, in the model's order. A pattern without one throws
// UsageError("key", ...) with the nearest path.
std::vector<nn::Linear*> linear_layers(nn::Model& model, const std::vector<std::string>& patterns,
                                       std::string_view key);

// The modules that patterns choose, the topmost where one lies in another. A pattern without one
// throws UsageError("key", ...).
std::vector<nn::Module*> chosen_modules(nn::Model& model, const std::vector<std::string>& patterns,
                                        std::string_view key);

// Whether `path` is `module` or lies in it.
bool lies_in(std::string_view path, std::string_view module);

}  // namespace lithe
