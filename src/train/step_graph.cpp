#include "train/step_graph.h"

#include <algorithm>
#include <limits>
#include <set>

#include "tensor/graph/verify.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/attention_dropout.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/fuse.h"
#include "tensor/ops/fuse_codecs.h"
#include "tensor/ops/fuse_products.h"
#include "tensor/ops/gradient_rows.h"
#include "tensor/ops/update.h"

namespace lithe {
namespace {

std::string accumulator_name(const Slot& parameter) {
  return fmt::format("gradient.{}", parameter.name);
}

bool is_attention(const Graph& graph, NodeId n) { return graph.node(n).op == &attention_op; }

// Forward and, when training, backward with the graph passes applied.
struct Built {
  StepGraph step;
  std::vector<ParameterGradient> gradients;
};

std::vector<ValueId> trainable_leaves(const Graph& g) {
  std::vector<ValueId> leaves;
  for (ValueId v : g.leaves()) {
    if (g.value(v).slot == kNoSlot) {
      continue;
    }
    const Slot& slot = g.slots()[g.slots().original(g.value(v).slot)];
    if (slot.kind == SlotKind::parameter && slot.trainable) {
      leaves.push_back(v);
    }
  }
  return leaves;
}

void find_inputs(StepGraph& step) {
  const Graph& g = *step.graph;
  for (ValueId v : g.leaves()) {
    if (!g.value(v).is_input) {
      continue;
    }
    const std::string name = g.name(v);
    if (name == "rng") {
      step.rng = v;
    } else {
      step.inputs.emplace_back(name, v);
    }
  }
}

Built build(const StepContext& c, const StepOptions& options, bool training) {
  Built built;
  StepGraph& step = built.step;
  step.graph = std::make_unique<Graph>(c.slots);
  Graph& g = *step.graph;
  g.set_numerics(options.numerics);
  step.shape = options.shape;
  const nn::ForwardOut out =
      c.model.build(g, {.batch = options.shape.batch,
                        .tokens = options.shape.tokens,
                        .training = training,
                        .label_smoothing = training ? options.label_smoothing : 0,
                        .compute = options.compute});
  step.loss = out.loss;
  g.mark_output(out.loss, "loss");
  if (!training) {
    step.logits = out.logits;
    g.mark_output(out.logits, "logits");
  } else if (out.correct != kNoValue) {
    step.correct = out.correct;
    g.mark_output(out.correct, "correct");
  }
  if (options.value_dropout) {
    drop_attention_values(g);
  }
  if (options.unfused_attention) {
    expand(g, is_attention);
  }
  if (training) {
    c.passes.before_gradients({&c.model, &c.slots, &g});
  }
  if (options.fuse) {
    fuse_residual_norms(g);
    if (c.device != DeviceKind::cpu) {  // which gains nothing by it
      fuse_parallel_linears(g);
    }
  }
  find_inputs(step);
  if (training) {
    const std::vector<ValueId> wanted = trainable_leaves(g);
    built.gradients = gradients(g, out.loss, 1.0 / static_cast<double>(options.accumulate), wanted);
    if (!c.passes.empty()) {
      step.passes = c.passes.apply_graph({&c.model, &c.slots, &g}, &step.preview);
    }
    if (options.fuse) {
      fuse_codecs(g, built.gradients, c.device);
      fuse_sums(g);
      if (c.device == DeviceKind::cuda) {
        fuse_products(g, built.gradients);
      }
    }
  }
  return built;
}

void finish(StepGraph& step, DeviceKind device) {
  step.graph->eliminate_dead();
  verify(*step.graph, "building the step");
  step.plan = make_plan(*step.graph, device);
  const Graph& g = *step.graph;
  for (NodeId n : step.plan.order) {
    const OpDef& op = *g.node(n).op;
    step.flops += op.flops == nullptr ? 0 : op.flops(g, n);
  }
  const auto loss =
      std::find(step.plan.order.begin(), step.plan.order.end(), g.value(step.loss).producer);
  step.loss_end = static_cast<int>(loss - step.plan.order.begin()) + 1;
}

// New nodes go right behind the producer of `v`.
void cursor_behind(Graph& g, ValueId v) { g.set_cursor(g.next(g.value(v).producer)); }

// On a device that is launched to, many small updates cost more than the memory of a block's
// gradients.
UpdateOrder update_order(DeviceKind device) {
  return device == DeviceKind::cpu ? UpdateOrder::each : UpdateOrder::by_block;
}

// What the schedule will be told of the units that are trained in this step.
void mark_changes(StepGraph& step, const std::vector<ParameterGradient>& gradients,
                  const std::vector<UpdateOut>& updates, const UnitSchedule& schedule) {
  Graph& g = *step.graph;
  const std::set<SlotId> units(schedule.units.begin(), schedule.units.end());
  for (size_t i = 0; i < gradients.size(); ++i) {
    const SlotId slot = parameter_of(g, gradients[i]);
    if (units.contains(slot)) {
      g.mark_output(updates[i].change, fmt::format("change of {}", g.slots()[slot].name));
      step.changes.emplace_back(slot, updates[i].change);
    }
  }
}

// Units that are frozen in this step.
std::vector<SlotId> idle_units(const Graph& g, const UnitSchedule& schedule,
                               const Optimizer& optimizer) {
  if (!optimizer.runs_without_gradient()) {
    throw UsageError("freeze.legacy_momentum",
                     "is for optimizers that can update without a gradient; use optimizer.name "
                     "adamw, or leave it out");
  }
  std::vector<SlotId> idle;
  for (const SlotId unit : schedule.units) {
    if (!g.slots()[unit].trainable) {
      idle.push_back(unit);
    }
  }
  return idle;
}

StepGraph build_update_step(const StepContext& context, const Optimizer& optimizer,
                            const StepOptions& options) {
  Built built = build(context, options, true);
  StepGraph& step = built.step;
  Graph& g = *step.graph;
  if (options.accumulate > 1) {
    g.set_phase(Phase::update);
    for (ParameterGradient& p : built.gradients) {
      const Slot& parameter = g.slots()[parameter_of(g, p)];
      const ValueId sum = g.leaf(g.slots().find(accumulator_name(parameter)));
      cursor_behind(g, p.gradient);
      // Of its block, so that updates can tell what belongs together (UpdateOrder::by_block).
      const NodeId made = g.value(p.gradient).producer;
      g.set_scope(g.add_scope(parameter.name, g.scope_of(made).block));
      p.gradient = add(g, cast(g, p.gradient, parameter.dtype), sum);
      g.mark_gradient(p.gradient);
      clear(g, sum);
    }
    g.set_cursor(kNoNode);
  } else if (options.fuse) {
    use_gradient_rows(g, built.gradients);
  }
  step.lr = g.input("lr", DType::f32, {1});
  UpdateInputs inputs{.lr = step.lr};
  const UpdateOrder order = update_order(context.device);
  const UnitSchedule* schedule = context.passes.schedule();
  if (schedule != nullptr) {
    inputs.measures.change = schedule->metric;
  }
  std::vector<UpdateOut> updates;
  ClipOut clip;
  if (options.clip_norm > 0) {
    clip = clip_factor(g, attach_sum_squares(g, built.gradients, order), options.clip_norm);
    inputs.grad_scale = clip.factor;
    updates = attach_updates(g, built.gradients, optimizer, inputs, order);
  } else {
    // Nobody waits for the norm: the updates measure it on their way.
    inputs.measures.squares = true;
    updates = attach_updates(g, built.gradients, optimizer, inputs, order);
    std::vector<ValueId> sums;
    sums.reserve(updates.size());
    for (const UpdateOut& out : updates) {
      sums.push_back(out.squares);
    }
    g.set_phase(Phase::update);
    clip = clip_factor(g, sums, std::numeric_limits<double>::infinity());
  }
  if (schedule != nullptr && schedule->legacy_momentum) {
    attach_idle_updates(g, idle_units(g, *schedule, optimizer), optimizer, step.lr);
  }
  step.grad_norm = clip.norm;
  g.mark_output(clip.norm, "grad_norm");
  if (schedule != nullptr && schedule->metric != ChangeMetric::none) {
    mark_changes(step, built.gradients, updates, *schedule);
  }
  finish(step, context.device);
  return std::move(built.step);
}

StepGraph build_accumulate_step(const StepContext& context, const StepOptions& options) {
  Built built = build(context, options, true);
  Graph& g = *built.step.graph;
  g.set_phase(Phase::update);
  for (const GradientRun& run : gradient_runs(g, built.gradients, update_order(context.device))) {
    g.set_cursor(run.cursor);
    for (size_t i = run.begin; i < run.end; ++i) {
      const ParameterGradient& p = built.gradients[i];
      const Slot& parameter = g.slots()[parameter_of(g, p)];
      g.set_scope(g.add_scope(parameter.name));
      accumulate(g, g.leaf(g.slots().find(accumulator_name(parameter))), p.gradient);
    }
  }
  g.set_cursor(kNoNode);
  finish(built.step, context.device);
  return std::move(built.step);
}

}  // namespace

ValueId StepGraph::input(std::string_view name) const {
  std::vector<std::string_view> known;
  for (const auto& [key, value] : inputs) {
    if (key == name) {
      return value;
    }
    known.push_back(key);
  }
  throw GraphError("step", "the model takes no input '{}'; it takes {}", name,
                   fmt::join(known, ", "));
}

void add_training_slots(SlotTable& slots, const nn::Model& model, Optimizer& optimizer,
                        int64_t accumulate) {
  model.visit([&](const nn::Module& module) {
    for (const nn::Parameter& p : module.parameters()) {
      if (!slots[p.slot].trainable) {
        continue;
      }
      optimizer.add_state(slots, p.slot);
      if (accumulate > 1) {
        slots.add({.name = accumulator_name(slots[p.slot]),
                   .dtype = slots[p.slot].dtype,
                   .shape = slots[p.slot].shape,
                   .cls = MemoryClass::gradients,
                   .kind = SlotKind::state});
      }
    }
  });
}

StepGraph build_step(const StepContext& context, const Optimizer& optimizer,
                     const StepOptions& options, StepKind kind) {
  switch (kind) {
    case StepKind::update:
      return build_update_step(context, optimizer, options);
    case StepKind::accumulate:
      return build_accumulate_step(context, options);
    case StepKind::eval:
      break;
  }
  Built built = build(context, options, false);
  finish(built.step, context.device);
  return std::move(built.step);
}

}  // namespace lithe
