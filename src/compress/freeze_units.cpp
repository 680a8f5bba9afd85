#include "compress/freeze_units.h"

#include <algorithm>

namespace lithe {
namespace {

struct Candidate {
  NamedParameter parameter;
  bool automatic = false;  // a unit where the recipe names none
};

std::vector<Candidate> candidates(const nn::Model& model) {
  std::vector<Candidate> out;
  size_t behind_blocks = 0;  // candidates up to the end of the last block
  const nn::Module* head = nullptr;
  model.visit([&](const nn::Module& module) {
    if (module.block() < 0 && module.kind() == "linear") {
      head = &module;
    }
    for (const nn::Parameter& p : module.parameters()) {
      const Slot& slot = model.slots()[p.slot];
      const bool scale = module.kind() == "layer_norm" && p.name == "weight";
      if (slot.trainable && (slot.shape.rank() >= 2 || scale)) {
        out.push_back({{slot.name, p.slot, module.block()}, slot.shape.rank() >= 2});
      }
    }
    behind_blocks = module.block() >= 0 ? out.size() : behind_blocks;
  });
  // A norm behind the blocks is not one of SlimFit's.
  std::for_each(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(behind_blocks),
                [](Candidate& c) { c.automatic = true; });
  if (model.task() == nn::Task::regression && head != nullptr) {
    for (const nn::Parameter& p : head->parameters()) {
      for (Candidate& c : out) {
        c.automatic = c.automatic && c.parameter.slot != p.slot;
      }
    }
  }
  return out;
}

// Those among the candidates that a pattern matches.
std::vector<bool> matches(const std::vector<Candidate>& all, const std::string& pattern,
                          std::string_view key) {
  std::vector<bool> out;
  out.reserve(all.size());
  for (const Candidate& c : all) {
    out.push_back(glob_match(pattern, c.parameter.name));
  }
  if (std::find(out.begin(), out.end(), true) == out.end()) {
    std::vector<NamedParameter> names;
    names.reserve(all.size());
    for (const Candidate& c : all) {
      names.push_back(c.parameter);
    }
    throw UsageError(key,
                     "'{}' matches no weight of two or more dimensions and no scale of a norm; the "
                     "nearest is '{}'",
                     pattern, nearest_name(pattern, names));
  }
  return out;
}

}  // namespace

std::vector<NamedParameter> freeze_units(const nn::Model& model,
                                         const std::vector<std::string>& patterns,
                                         const std::vector<std::string>& always) {
  const std::vector<Candidate> all = candidates(model);
  std::vector<bool> take(all.size(), false);
  const auto mark = [&](const std::vector<bool>& where, bool as) {
    for (size_t i = 0; i < all.size(); ++i) {
      take[i] = where[i] ? as : take[i];
    }
  };
  for (const std::string& pattern : patterns) {
    if (pattern == "auto") {
      for (size_t i = 0; i < all.size(); ++i) {
        take[i] = take[i] || all[i].automatic;
      }
    } else {
      mark(matches(all, pattern, "freeze.units"), true);
    }
  }
  for (const std::string& pattern : always) {
    mark(matches(all, pattern, "freeze.always"), false);
  }
  std::vector<NamedParameter> out;
  for (size_t i = 0; i < all.size(); ++i) {
    if (take[i]) {
      out.push_back(all[i].parameter);
    }
  }
  return out;
}

}  // namespace lithe
