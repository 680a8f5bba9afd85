// Optimizers emit update nodes into the step graph; their state lives in slots, one set a
// parameter.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "recipe/recipe.h"
#include "tensor/graph/gradient.h"
#include "tensor/ops/update.h"

namespace lithe {

// The values that every update of a step reads, and what each is to measure.
struct UpdateInputs {
  ValueId lr = kNoValue;          // fp32 [1]
  ValueId grad_scale = kNoValue;  // fp32 [1] or kNoValue
  UpdateMeasures measures = {};   // every optimizer gives what is asked for
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // Adds the state slots of a trainable parameter; once, before any graph is built.
  virtual void add_state(SlotTable& slots, SlotId parameter) = 0;
  // Emits the update of one parameter; of `p` only the gradient and its rows are read. There may be
  // no gradient where runs_without_gradient().
  virtual UpdateOut update(Graph& graph, SlotId parameter, const ParameterGradient& p,
                           const UpdateInputs& inputs) const = 0;
  // Whether update() writes the parameter's copy (Slot::copy) too; otherwise attach_updates does.
  virtual bool writes_copy() const { return false; }
  // Whether it can update as if the gradient were zero, except what it never updated before.
  virtual bool runs_without_gradient() const { return false; }
};

// Options of the recipe's `optimizer` section.
recipe::Schema optimizer_options();
std::unique_ptr<Optimizer> make_optimizer(const recipe::Recipe& section);

// Whether weight decay applies to a parameter: no pattern of `no_decay` (globs over the full name)
// matches.
bool decays(std::string_view name, const std::vector<std::string>& no_decay);

// The parameter that a gradient belongs to, whether the step computed with it or with its copy.
SlotId parameter_of(const Graph& graph, const ParameterGradient& p);

// Where the nodes that take the gradients stand.
enum class UpdateOrder : uint8_t {
  each,      // each behind its gradient, so that the gradient dies there
  by_block,  // those of one repeated block (Scope::block) next to each other, so that they form
             // groups (OpDef::grouped); the block's gradients live until then, and into the next
             // block's where they are small
};

// Neighbours [begin, end) of a list of gradients, and the earliest place where all of them exist
// and none of their parameters is read any more: before the node `cursor`, kNoNode: at the end.
struct GradientRun {
  size_t begin = 0, end = 0;
  NodeId cursor = kNoNode;
};
// In the order of the list, which is that of completion (build_gradients).
std::vector<GradientRun> gradient_runs(const Graph& graph,
                                       const std::vector<ParameterGradient>& gradients,
                                       UpdateOrder order);

// Emits the update of each gradient where gradient_runs puts it; all at the end, as one run, where
// inputs.grad_scale is computed in the graph. Returns what they put out, by gradient.
std::vector<UpdateOut> attach_updates(Graph& graph, const std::vector<ParameterGradient>& gradients,
                                      const Optimizer& optimizer, const UpdateInputs& inputs,
                                      UpdateOrder order = UpdateOrder::each);

// Emits, at the end, the updates of parameters that have no gradient in this step but move all the
// same (Optimizer::runs_without_gradient).
void attach_idle_updates(Graph& graph, const std::vector<SlotId>& parameters,
                         const Optimizer& optimizer, ValueId lr);

// Emits the sums of squares of the gradients, as attach_updates does the updates, for a factor that
// all updates wait for.
std::vector<ValueId> attach_sum_squares(Graph& graph,
                                        const std::vector<ParameterGradient>& gradients,
                                        UpdateOrder order = UpdateOrder::each);

}  // namespace lithe
