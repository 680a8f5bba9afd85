#include "compress/adapter_sites.h"

#include <algorithm>
#include <set>

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

// Of all modules and their parts, each before what lies in it.
std::vector<std::string> all_paths(const nn::Model& model) {
  std::vector<std::string> out;
  std::set<std::string> known;
  model.visit([&](const nn::Module& module) {
    const std::string& path = module.path();
    for (size_t end = path.find('.'); !path.empty(); end = path.find('.', end + 1)) {
      std::string part = path.substr(0, end);
      if (known.insert(part).second) {
        out.push_back(std::move(part));
      }
      if (end == std::string::npos) {
        break;
      }
    }
  });
  return out;
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

std::vector<std::string> chosen_paths(const nn::Model& model,
                                      const std::vector<std::string>& patterns,
                                      std::string_view key) {
  const std::vector<std::string> paths = all_paths(model);
  expect_matches(patterns, paths, key, "module");
  std::vector<std::string> out;
  for (const std::string& path : paths) {
    if (names_module(patterns, path) && !lies_in(path, out)) {
      out.push_back(path);
    }
  }
  return out;
}

bool names_any_path(const nn::Model& model, const std::string& pattern) {
  const std::vector<std::string> paths = all_paths(model);
  return std::any_of(paths.begin(), paths.end(),
                     [&](const std::string& path) { return names_module(pattern, path); });
}

bool lies_in(std::string_view path, const std::vector<std::string>& modules) {
  return std::any_of(modules.begin(), modules.end(), [&](const std::string& module) {
    return path == module ||
           (path.size() > module.size() && path.starts_with(module) && path[module.size()] == '.');
  });
}

}  // namespace lithe
