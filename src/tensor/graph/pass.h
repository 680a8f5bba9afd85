// The one shape of every pass (freeze, recompute, codecs, quantize, prune, adapters). A model pass
// decides on the module tree, before graphs are built; a graph pass rewrites a step graph after its
// backward.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "recipe/recipe.h"
#include "tensor/core/memory_class.h"
#include "tensor/graph/graph.h"

namespace lithe {

namespace nn {
class Model;
}

// What a pass works on. Model passes see `model` and `slots`, graph passes `graph` as well.
struct PassTarget {
  nn::Model* model = nullptr;
  SlotTable* slots = nullptr;
  Graph* graph = nullptr;
  uint64_t seed = 0;  // the run's: what a pass draws follows from it
};

// Values of slots, read and written.
using GetSlot = std::function<Tensor(SlotId)>;
using PutSlot = std::function<void(SlotId, const Tensor&)>;

// What a finished run hands a pass that writes files of its own.
struct RunFiles {
  const nn::Model& model;
  std::filesystem::path folder;  // the run's
  std::string base;              // where the model's weights came from; empty: from nowhere
  GetSlot get;
};

// A place a pass would change, or refuses to change and why.
struct Site {
  std::string path;
  std::string kind;  // "parameter", "block", "edge", ...
  Shape shape;
  std::string refused;  // empty: accepted
};

// What a pass expects to change, before it does; negative numbers are savings.
struct PassEstimate {
  MemoryByClass bytes{};
  double flops = 0;  // per step
  int64_t file_bytes = 0;
};

struct PassReport {
  std::string name;
  std::string what;  // "9 of 12 blocks"
  int64_t sites = 0;
  double error = 0;  // relative, where the pass is lossy
};

enum class PassEvent : uint8_t { step_begin, after_backward, calibration_batch, step_end };

enum class ChangeMetric : uint8_t;  // tensor/ops/update.h

// What a pass that chooses in each step which of its units are trained has to say of them. A unit
// is a parameter; whether it is trained is its slot's mark.
struct UnitSchedule {
  std::vector<SlotId> units;  // all that are ever chosen
  int64_t active = 0;         // trained in each step
  ChangeMetric metric{};      // what it wants to know of their updates
  int64_t lag = 0;  // a choice knows the changes of the steps up to 1 + lag before its own
  // Units that are not trained, but were once, are updated as with a gradient of zero.
  bool legacy_momentum = false;
};

// How far an update moved a unit.
struct UnitChange {
  SlotId unit = kNoSlot;
  double by = 0;
};

class Pass {
 public:
  enum class Stage : uint8_t { model, graph };

  virtual ~Pass() = default;
  virtual std::string_view name() const = 0;
  virtual Stage stage() const = 0;
  // The sites that the recipe's selectors name. A selector that names nothing throws UsageError
  // with the nearest path.
  virtual std::vector<Site> match(const PassTarget& target) const = 0;
  virtual PassEstimate estimate(const PassTarget& target) const = 0;
  virtual PassReport apply(const PassTarget& target) = 0;
  // Of graph passes: what the forward graph must have before its gradient is built. Evaluation is
  // not asked.
  virtual void before_gradients(const PassTarget& /*target*/) const {}
  // Returns true when graphs must be rebuilt (a schedule chose other sites).
  virtual bool on(PassEvent /*event*/, int64_t /*step*/) { return false; }
  // After apply; null where the pass chooses once and for all.
  virtual const UnitSchedule* schedule() const { return nullptr; }
  // The first values of the slots that the pass does not leave to chance, after those of the model
  // (initial_value, files). Of parameters only: their copies follow.
  virtual void start(const PassTarget& /*target*/, const PutSlot& /*put*/) const {}
  // Before the first step: how many there will be.
  virtual void run_length(int64_t /*steps*/) {}
  // What the units trained in a step did; steps come in order, each before the begin of the step
  // that knows it (UnitSchedule::lag).
  virtual void measured(int64_t /*step*/, double /*lr*/, std::span<const UnitChange> /*changes*/) {}
  // Goes into checkpoints, so that a resumed run is exact.
  virtual nlohmann::json state() const { return nlohmann::json::object(); }
  virtual void restore(const nlohmann::json& /*state*/) {}
  // At the end of a run. Returns whether the pass's files stand for the model, so that the whole
  // model need not be written as well.
  virtual bool write_files(const RunFiles& /*run*/) const { return false; }
  // Undoes apply; returns why it cannot, or nothing.
  virtual std::string invert(const PassTarget& target) = 0;
};

// How a recipe makes a pass: its section's name, options and constructor.
struct PassKind {
  std::string_view name;
  std::string_view help;
  recipe::Schema (*options)();
  // `section` is the recipe seen from inside the pass's section.
  std::unique_ptr<Pass> (*make)(const recipe::Recipe& section);
};

// Runs passes in their order and verifies after each; a failure names the pass, its site where
// known and the passes already run.
class PassManager {
 public:
  void add(std::unique_ptr<Pass> pass) { passes_.push_back(std::move(pass)); }
  bool empty() const { return passes_.empty(); }
  const std::vector<std::unique_ptr<Pass>>& passes() const { return passes_; }

  // A pass finds what those before it have made, so `preview` gets its line just before it changes
  // something.
  std::vector<PassReport> apply_model(const PassTarget& target,
                                      std::vector<std::string>* preview = nullptr) const;
  std::vector<PassReport> apply_graph(const PassTarget& target,
                                      std::vector<std::string>* preview = nullptr) const;
  void before_gradients(const PassTarget& target) const;
  bool on(PassEvent event, int64_t step) const;
  // Of the pass that has one: units have one owner.
  const UnitSchedule* schedule() const;
  void start(const PassTarget& target, const PutSlot& put) const;
  void run_length(int64_t steps) const;
  void measured(int64_t step, double lr, std::span<const UnitChange> changes) const;
  // Whether the files of one pass stand for the model.
  bool write_files(const RunFiles& run) const;
  nlohmann::json state() const;
  // Throws FileError when the checkpoint's passes are not the recipe's.
  void restore(const nlohmann::json& state) const;

 private:
  std::vector<PassReport> apply(Pass::Stage stage, const PassTarget& target,
                                std::vector<std::string>* preview) const;

  std::vector<std::unique_ptr<Pass>> passes_;
};

}  // namespace lithe
