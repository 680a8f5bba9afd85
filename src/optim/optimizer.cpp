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

bool decays(std::string_view name, const std::vector<std::string>& no_decay) {
  return std::none_of(no_decay.begin(), no_decay.end(),
                      [&](const std::string& pattern) { return glob_match(pattern, name); });
}

void attach_updates(Graph& graph, const std::vector<ParameterGradient>& gradients,
                    const Optimizer& optimizer, const UpdateInputs& inputs) {
  // An update must stand behind its gradient and behind the last reader of its parameter.
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
  // A computed factor (clipping) comes last of all, so every update has to wait for it.
  const bool wait =
      inputs.grad_scale != kNoValue && graph.value(inputs.grad_scale).producer != kNoNode;
  const Phase saved_phase = graph.phase();
  const ScopeId saved_scope = graph.current_scope();
  graph.set_phase(Phase::update);
  for (const ParameterGradient& p : gradients) {
    const NodeId reader = last_reader[static_cast<size_t>(p.parameter)];
    const NodeId made = graph.value(p.gradient).producer;
    const NodeId behind =
        position[static_cast<size_t>(reader)] > position[static_cast<size_t>(made)] ? reader : made;
    graph.set_cursor(wait ? kNoNode : graph.next(behind));
    const SlotId parameter = graph.slots().original(graph.value(p.parameter).slot);
    graph.set_scope(graph.add_scope(graph.slots()[parameter].name));
    optimizer.update(graph, parameter, p.gradient, inputs);
  }
  graph.set_cursor(kNoNode);
  graph.set_phase(saved_phase);
  graph.set_scope(saved_scope);
}

}  // namespace lithe
