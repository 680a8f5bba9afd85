#include "tensor/graph/gradient.h"

namespace lithe {

void GradContext::set(int i, ValueId grad) {
  const ValueId v = in(i);
  if (graph.shape(grad) != graph.shape(v) || graph.dtype(grad) != graph.dtype(v)) {
    throw GraphError(graph.node_name(node), "gradient of input {} is {} {}, the input {} {}", i,
                     dtype_name(graph.dtype(grad)), graph.shape(grad), dtype_name(graph.dtype(v)),
                     graph.shape(v));
  }
  const ValueId before = partial_[static_cast<size_t>(v)];
  const ValueId joined = before == kNoValue ? grad : graph.emit(add_, {before, grad});
  partial_[static_cast<size_t>(v)] = joined;
}

std::vector<ParameterGradient> build_gradients(Graph& graph, ValueId loss, ValueId seed,
                                               std::span<const ValueId> wanted, const OpDef& add) {
  const auto known = static_cast<size_t>(graph.value_count());
  std::vector<bool> needs(known, false);
  for (ValueId v : wanted) {
    needs[static_cast<size_t>(v)] = true;
  }
  // A value needs a gradient when it depends on a wanted leaf; the rest of the graph stays
  // untouched.
  const std::vector<NodeId> order = graph.order();
  for (NodeId n : order) {
    bool any = false;
    for (ValueId v : graph.inputs(n)) {
      any = any || (v != kNoValue && needs[static_cast<size_t>(v)]);
    }
    if (any) {
      for (ValueId v : graph.outputs(n)) {
        needs[static_cast<size_t>(v)] = is_floating(graph.dtype(v));
      }
    }
  }

  std::vector<ValueId> partial(known, kNoValue);
  partial[static_cast<size_t>(loss)] = seed;
  std::vector<int> readers(known, 0);  // forward readers of a wanted leaf still to be processed
  std::vector<bool> is_wanted(known, false);
  for (ValueId v : wanted) {
    is_wanted[static_cast<size_t>(v)] = true;
  }
  for (NodeId n : order) {
    for (ValueId v : graph.inputs(n)) {
      if (v != kNoValue && is_wanted[static_cast<size_t>(v)]) {
        ++readers[static_cast<size_t>(v)];
      }
    }
  }

  std::vector<ParameterGradient> out;
  const Phase saved_phase = graph.phase();
  const ScopeId saved_scope = graph.current_scope();
  graph.set_phase(Phase::backward);
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const NodeId n = *it;
    bool arrived = false;
    bool passes = false;
    for (ValueId v : graph.outputs(n)) {
      arrived = arrived || partial[static_cast<size_t>(v)] != kNoValue;
    }
    for (ValueId v : graph.inputs(n)) {
      passes = passes || (v != kNoValue && needs[static_cast<size_t>(v)]);
    }
    if (arrived && passes) {
      if (graph.node(n).op->grad == nullptr) {
        throw GraphError(
            graph.node_name(n),
            "has no gradient rule, but a gradient must pass it; freeze what lies below "
            "it or expand it to its definition first");
      }
      graph.set_scope(graph.node(n).scope);
      GradContext context(graph, n, needs, partial, add);
      graph.node(n).op->grad(context);
    }
    for (int i = 0; i < graph.node(n).input_count; ++i) {
      const ValueId v = graph.in(n, i);
      if (v != kNoValue && is_wanted[static_cast<size_t>(v)] &&
          --readers[static_cast<size_t>(v)] == 0 && partial[static_cast<size_t>(v)] != kNoValue) {
        graph.mark_gradient(partial[static_cast<size_t>(v)]);
        out.push_back({v, partial[static_cast<size_t>(v)]});
      }
    }
  }
  graph.set_phase(saved_phase);
  graph.set_scope(saved_scope);
  return out;
}

int expand(Graph& graph, bool (*choose)(const Graph&, NodeId)) {
  std::vector<ValueId> to;
  const Phase saved_phase = graph.phase();
  const ScopeId saved_scope = graph.current_scope();
  int count = 0;
  for (NodeId n = graph.first(); n != kNoNode; n = graph.next(n)) {
    if (graph.node(n).op->define == nullptr || !choose(graph, n)) {
      continue;
    }
    graph.set_cursor(n);
    graph.set_phase(graph.node(n).phase);
    graph.set_scope(graph.node(n).scope);
    std::array<ValueId, InferContext::kMaxOutputs> outputs{};
    outputs.fill(kNoValue);
    graph.node(n).op->define(graph, n, outputs);
    to.resize(static_cast<size_t>(graph.value_count()), kNoValue);
    for (int i = 0; i < graph.node(n).output_count; ++i) {
      const ValueId old = graph.output(n, i);
      to[static_cast<size_t>(old)] = outputs[static_cast<size_t>(i)];
      if (graph.value(old).is_output && outputs[static_cast<size_t>(i)] == kNoValue) {
        throw GraphError(graph.node_name(n), "its definition leaves out the output '{}'",
                         graph.name(old));
      }
      if (graph.value(old).is_output) {
        graph.mark_output(outputs[static_cast<size_t>(i)], graph.name(old));
        graph.clear_output(old);
      }
      if (graph.value(old).is_gradient && outputs[static_cast<size_t>(i)] != kNoValue) {
        graph.mark_gradient(outputs[static_cast<size_t>(i)]);
      }
    }
    graph.erase(n);
    ++count;
  }
  graph.set_cursor(kNoNode);
  graph.set_phase(saved_phase);
  graph.set_scope(saved_scope);
  if (count > 0) {
    graph.replace_uses(to);
  }
  return count;
}

}  // namespace lithe
