#include "tensor/graph/pass.h"

#include <algorithm>

#include "tensor/graph/verify.h"

namespace lithe {

namespace {

// What the pass would change.
std::string preview_line(const Pass& pass, const PassTarget& target) {
  const std::vector<Site> sites = pass.match(target);
  const auto refused =
      std::count_if(sites.begin(), sites.end(), [](const Site& s) { return !s.refused.empty(); });
  return fmt::format("{}: will change {} sites ({} refused)", pass.name(),
                     static_cast<int64_t>(sites.size()) - refused, refused);
}

}  // namespace

std::vector<PassReport> PassManager::apply_model(const PassTarget& target,
                                                 std::vector<std::string>* preview) const {
  return apply(Pass::Stage::model, target, preview);
}

std::vector<PassReport> PassManager::apply_graph(const PassTarget& target,
                                                 std::vector<std::string>* preview) const {
  return apply(Pass::Stage::graph, target, preview);
}

std::vector<PassReport> PassManager::apply(Pass::Stage stage, const PassTarget& target,
                                           std::vector<std::string>* preview) const {
  std::vector<PassReport> reports;
  std::string done;
  for (const auto& pass : passes_) {
    if (pass->stage() != stage) {
      continue;
    }
    if (preview != nullptr) {
      preview->push_back(preview_line(*pass, target));
    }
    try {
      reports.push_back(pass->apply(target));
      if (target.graph != nullptr) {
        verify(*target.graph, pass->name());
      }
    } catch (const Error& e) {
      throw Error(
          e.code(), fmt::format("pass {}", pass->name()),
          fmt::format("{} (passes already run: {})", e.what(), done.empty() ? "none" : done));
    }
    done += done.empty() ? "" : ", ";
    done += pass->name();
  }
  return reports;
}

void PassManager::before_gradients(const PassTarget& target) const {
  for (const auto& pass : passes_) {
    pass->before_gradients(target);
  }
}

bool PassManager::on(PassEvent event, int64_t step) const {
  bool rebuild = false;
  for (const auto& pass : passes_) {
    rebuild = pass->on(event, step) || rebuild;
  }
  return rebuild;
}

const UnitSchedule* PassManager::schedule() const {
  for (const auto& pass : passes_) {
    if (const UnitSchedule* schedule = pass->schedule(); schedule != nullptr) {
      return schedule;
    }
  }
  return nullptr;
}

void PassManager::start(const PassTarget& target, const PutSlot& put) const {
  for (const auto& pass : passes_) {
    pass->start(target, put);
  }
}

bool PassManager::write_files(const RunFiles& run) const {
  bool stand_for_model = false;
  for (const auto& pass : passes_) {
    stand_for_model = pass->write_files(run) || stand_for_model;
  }
  return stand_for_model;
}

void PassManager::run_length(int64_t steps) const {
  for (const auto& pass : passes_) {
    pass->run_length(steps);
  }
}

void PassManager::measured(int64_t step, double lr, std::span<const UnitChange> changes) const {
  for (const auto& pass : passes_) {
    pass->measured(step, lr, changes);
  }
}

nlohmann::json PassManager::state() const {
  nlohmann::json out = nlohmann::json::object();
  for (const auto& pass : passes_) {
    out[std::string(pass->name())] = pass->state();
  }
  return out;
}

void PassManager::restore(const nlohmann::json& state) const {
  for (const auto& pass : passes_) {
    const auto it = state.find(std::string(pass->name()));
    if (it == state.end()) {
      throw FileError("checkpoint",
                      "holds no state of the pass '{}'; resume with the recipe it was made with",
                      pass->name());
    }
    pass->restore(*it);
  }
  if (state.size() != passes_.size()) {
    throw FileError("checkpoint",
                    "holds {} passes, the recipe has {}; resume with the recipe it was made with",
                    state.size(), passes_.size());
  }
}

}  // namespace lithe
