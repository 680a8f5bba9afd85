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

// The paths that patterns choose, the topmost where one lies in another: of modules, or of what
// other libraries have a module for ("bert.pooler" above "bert.pooler.dense"). A pattern without
// one throws UsageError("key", ...).
std::vector<std::string> chosen_paths(const nn::Model& model,
                                      const std::vector<std::string>& patterns,
                                      std::string_view key);
// Whether there is one.
bool names_any_path(const nn::Model& model, const std::string& pattern);

// Whether `path` is one of `modules` or lies in one.
bool lies_in(std::string_view path, const std::vector<std::string>& modules);

}  // namespace lithe
