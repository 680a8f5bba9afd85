#include "optim/optimizer.h"

#include <algorithm>
#include <array>

#include "optim/adamw.h"
#include "optim/sgd.h"
#include "tensor/core/glob.h"

namespace lithe {
namespace {

struct OptimizerKind {
  std::string_view name;
  std::string_view help;
  recipe::Schema (*options)();
  std::unique_ptr<Optimizer> (*make)(const recipe::Recipe& section);
};

// Registration of an optimizer is its line here.
constexpr std::array<OptimizerKind, 2> kKinds = {{
    {"adamw", "AdamW", adamw_options, make_adamw},
    {"sgd", "SGD with momentum", sgd_options, make_sgd},
}};

// New nodes are of the update phase; scope, phase and cursor are put back at the end.
class UpdateContext {
 public:
  explicit UpdateContext(Graph& graph)
      : graph_(graph), phase_(graph.phase()), scope_(graph.current_scope()) {
    graph.set_phase(Phase::update);
  }
  ~UpdateContext() {
    graph_.set_cursor(kNoNode);
    graph_.set_phase(phase_);
    graph_.set_scope(scope_);
  }
  UpdateContext(const UpdateContext&) = delete;
  UpdateContext& operator=(const UpdateContext&) = delete;

  void enter(const ParameterGradient& p) { enter(parameter_of(graph_, p)); }
  void enter(SlotId parameter) {
    graph_.set_scope(graph_.add_scope(graph_.slots()[parameter].name));
  }

 private:
  Graph& graph_;
  Phase phase_;
  ScopeId scope_;
};

}  // namespace

recipe::Schema optimizer_options() {
  using recipe::Type;
  std::vector<std::string> names;
  names.reserve(kKinds.size());
  for (const OptimizerKind& kind : kKinds) {
    names.emplace_back(kind.name);
  }
  recipe::Schema schema;
  schema
      .add({.key = "name",
            .type = Type::string,
            .fallback = std::string("adamw"),
            .help = "which optimizer",
            .choices = names})
      .add({.key = "lr",
            .type = Type::number,
            .fallback = 1e-3,
            .help = "peak learning rate",
            .min = 0})
      .add({.key = "weight_decay",
            .type = Type::number,
            .fallback = 0.01,
            .help = "weight decay of the parameters that no_decay does not name",
            .min = 0})
      .add({.key = "no_decay",
            .type = Type::string_list,
            .fallback = std::vector<std::string>{"*.bias", "*norm*.weight", "*Norm*.weight"},
            .help = "parameters without weight decay, * and ? allowed"});
  for (const OptimizerKind& kind : kKinds) {
    schema.section(std::string(kind.name), kind.options(), std::string(kind.help));
  }
  return schema;
}

std::unique_ptr<Optimizer> make_optimizer(const recipe::Recipe& section) {
  const std::string name = section.string("name");
  const auto kind = std::find_if(kKinds.begin(), kKinds.end(),
                                 [&](const OptimizerKind& k) { return k.name == name; });
  return kind->make(section);  // the schema's choices are kKinds' names
}

SlotId parameter_of(const Graph& graph, const ParameterGradient& p) {
  return graph.slots().original(graph.value(p.parameter).slot);
}

bool decays(std::string_view name, const std::vector<std::string>& no_decay) {
  return std::none_of(no_decay.begin(), no_decay.end(),
                      [&](const std::string& pattern) { return glob_match(pattern, name); });
}

// A launch of fewer bytes takes longer than its work: where most of a block is frozen there is
// little in it but biases.
constexpr int64_t kRunBytes = int64_t{8} << 20;

std::vector<GradientRun> gradient_runs(const Graph& graph,
                                       const std::vector<ParameterGradient>& gradients,
                                       UpdateOrder order) {
  std::vector<int32_t> position(static_cast<size_t>(graph.node_count()), -1);
  std::vector<NodeId> last_reader(static_cast<size_t>(graph.value_count()), kNoNode);
  int32_t count = 0;
  for (NodeId n = graph.first(); n != kNoNode; n = graph.next(n)) {
    position[static_cast<size_t>(n)] = count++;
    for (ValueId v : graph.inputs(n)) {
      if (v != kNoValue) {
        last_reader[static_cast<size_t>(v)] = n;
      }
    }
  }
  const auto later = [&](NodeId a, NodeId b) {
    return position[static_cast<size_t>(a)] > position[static_cast<size_t>(b)] ? a : b;
  };
  std::vector<GradientRun> runs;
  NodeId behind = kNoNode;
  int block = -1;
  int64_t bytes = 0;  // of the present run
  for (size_t i = 0; i < gradients.size(); ++i) {
    const NodeId made = graph.value(gradients[i].gradient).producer;
    const NodeId ready = later(last_reader[static_cast<size_t>(gradients[i].parameter)], made);
    const int of = graph.scope_of(made).block;
    if (i == 0 || order == UpdateOrder::each || (of != block && bytes >= kRunBytes)) {
      runs.push_back({.begin = i});
      behind = ready;
      bytes = 0;
    }
    block = of;
    bytes += graph.bytes(gradients[i].gradient);
    behind = later(behind, ready);
    runs.back().end = i + 1;
    runs.back().cursor = graph.next(behind);
  }
  return runs;
}

std::vector<UpdateOut> attach_updates(Graph& graph, const std::vector<ParameterGradient>& gradients,
                                      const Optimizer& optimizer, const UpdateInputs& inputs,
                                      UpdateOrder order) {
  // A computed factor (clipping) comes last of all, so every update has to wait for it.
  const bool wait =
      inputs.grad_scale != kNoValue && graph.value(inputs.grad_scale).producer != kNoNode;
  const std::vector<GradientRun> runs =
      wait ? std::vector<GradientRun>{{.begin = 0, .end = gradients.size()}}
           : gradient_runs(graph, gradients, order);
  UpdateContext context(graph);
  std::vector<UpdateOut> out(gradients.size());
  for (const GradientRun& run : runs) {
    graph.set_cursor(run.cursor);
    for (size_t i = run.begin; i < run.end; ++i) {
      context.enter(gradients[i]);
      out[i] = optimizer.update(graph, parameter_of(graph, gradients[i]), gradients[i], inputs);
    }
    for (size_t i = run.begin; i < run.end && !optimizer.writes_copy(); ++i) {
      const SlotId copy = graph.slots()[parameter_of(graph, gradients[i])].copy;
      if (copy != kNoSlot) {
        context.enter(gradients[i]);
        assign(graph, graph.leaf(copy), out[i].weight);
      }
    }
  }
  return out;
}

void attach_idle_updates(Graph& graph, const std::vector<SlotId>& parameters,
                         const Optimizer& optimizer, ValueId lr) {
  UpdateContext context(graph);
  for (const SlotId parameter : parameters) {
    context.enter(parameter);
    optimizer.update(graph, parameter, {}, {.lr = lr});
  }
}

std::vector<ValueId> attach_sum_squares(Graph& graph,
                                        const std::vector<ParameterGradient>& gradients,
                                        UpdateOrder order) {
  const std::vector<GradientRun> runs = gradient_runs(graph, gradients, order);
  UpdateContext context(graph);
  std::vector<ValueId> out(gradients.size(), kNoValue);
  for (const GradientRun& run : runs) {
    graph.set_cursor(run.cursor);
    for (size_t i = run.begin; i < run.end; ++i) {
      context.enter(gradients[i]);
      out[i] = sum_squares(graph, gradients[i].gradient, gradients[i].rows);
    }
  }
  return out;
}

}  // namespace lithe
