#include "compress/adapter_sites.h"

#include <algorithm>

#include "recipe/nearest.h"
#include "tensor/core/glob.h"

namespace lithe {
namespace {

// Throws for a pattern that names none of `paths`; `what` they are.
void expect_matches(const std::vector<std::string>& patterns, const std::vector<std::string>& paths,
                    std::string_view key, std::string_view what) {
  for (const std::string& pattern : patterns) {
    if (std::any_of(paths.begin(), paths.end(),
                    [&](const std::string& path) { return names_module(pattern, path); })) {
      continue;
    }
    const auto nearest =
        std::min_element(paths.begin(), paths.end(), [&](const auto& a, const auto& b) {
          return recipe::edit_distance(pattern, a) < recipe::edit_distance(pattern, b);
        });
    throw UsageError(key, "'{}' names no {} of the model; the nearest is '{}'", pattern, what,
                     nearest == paths.end() ? "" : *nearest);
  }
}

}  // namespace

bool names_module(std::string_view pattern, std::string_view path) {
  if (pattern.find_first_of("*?") != std::string_view::npos) {
    return glob_match(pattern, path);
  }
  return path == pattern || (path.size() > pattern.size() && path.ends_with(pattern) &&
                             path[path.size() - pattern.size() - 1] == '.');
}

bool names_module(const std::vector<std::string>& patterns, std::string_view path) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return names_module(pattern, path); });
}

std::vector<nn::Linear*> linear_layers(nn::Model& model, const std::vector<std::string>& patterns,
                                       std::string_view key) {
  std::vector<nn::Linear*> out;
  std::vector<std::string> paths;
  model.visit([&](nn::Module& module) {
    auto* layer = dynamic_cast<nn::Linear*>(&module);
    if (layer != nullptr) {
      paths.push_back(layer->path());
      if (names_module(patterns, layer->path())) {
        out.push_back(layer);
      }
    }
  });
  expect_matches(patterns, paths, key, "linear layer");
  return out;
}

std::vector<nn::Module*> chosen_modules(nn::Model& model, const std::vector<std::string>& patterns,
                                        std::string_view key) {
  std::vector<nn::Module*> out;
  std::vector<std::string> paths;
  model.visit([&](nn::Module& module) {
    if (module.path().empty()) {
      return;  // the model itself
    }
    paths.push_back(module.path());
    const bool inside = std::any_of(out.begin(), out.end(), [&](const nn::Module* above) {
      return lies_in(module.path(), above->path());
    });
    if (!inside && names_module(patterns, module.path())) {
      out.push_back(&module);
    }
  });
  expect_matches(patterns, paths, key, "module");
  return out;
}

bool lies_in(std::string_view path, std::string_view module) {
  return path == module ||
         (path.size() > module.size() && path.starts_with(module) && path[module.size()] == '.');
}

}  // namespace lithe
