// Optimizers emit update nodes into the step graph; their state lives in slots, one set a
// parameter.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "recipe/recipe.h"
#include "tensor/graph/gradient.h"

namespace lithe {

// The values that every update of a step reads.
struct UpdateInputs {
  ValueId lr = kNoValue;          // fp32 [1]
  ValueId grad_scale = kNoValue;  // fp32 [1] or kNoValue
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // Adds the state slots of a trainable parameter; once, before any graph is built.
  virtual void add_state(SlotTable& slots, SlotId parameter) = 0;
  // Emits the update of one parameter, and of its copy where it has one (Slot::copy).
  virtual void update(Graph& graph, SlotId parameter, ValueId gradient,
                      const UpdateInputs& inputs) const = 0;
};

// Options of the recipe's `optimizer` section.
recipe::Schema optimizer_options();
std::unique_ptr<Optimizer> make_optimizer(const recipe::Recipe& section);

// Whether weight decay applies to a parameter: no pattern of `no_decay` (globs over the full name)
// matches.
bool decays(std::string_view name, const std::vector<std::string>& no_decay);

// Emits the update of each gradient at the earliest place: behind the gradient and behind the last
// reader of the parameter, so that the gradient dies there.
void attach_updates(Graph& graph, const std::vector<ParameterGradient>& gradients,
                    const Optimizer& optimizer, const UpdateInputs& inputs);

}  // namespace lithe
