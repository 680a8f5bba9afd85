#include "tensor/graph/rewrite.h"

#include <algorithm>
#include <string>

namespace lithe {

Readers::Readers(const Graph& g)
    : first_(static_cast<size_t>(g.value_count()), kNoNode),
      count_(first_.size(), 0),
      position_(static_cast<size_t>(g.node_count()), 0) {
  int position = 0;
  for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
    position_[static_cast<size_t>(n)] = position++;
    for (ValueId v : g.inputs(n)) {
      if (v != kNoValue && count_[static_cast<size_t>(v)]++ == 0) {
        first_[static_cast<size_t>(v)] = n;
      }
    }
  }
}

NodeId Readers::sole_source(const Graph& g, ValueId v, const OpDef& op) const {
  const NodeId made = g.value(v).producer;
  const bool sole =
      made != kNoNode && g.node(made).op == &op && count(v) == 1 && !g.value(v).is_output;
  return sole ? made : kNoNode;
}

Rewrite::Rewrite(Graph& g)
    : g_(g),
      scope_(g.current_scope()),
      phase_(g.phase()),
      to_(static_cast<size_t>(g.value_count()), kNoValue),
      is_gone_(static_cast<size_t>(g.node_count()), false) {}

void Rewrite::at(NodeId n) {
  g_.set_cursor(n);
  g_.set_scope(g_.node(n).scope);
  g_.set_phase(g_.node(n).phase);
}

void Rewrite::replace(ValueId from, ValueId with) {
  to_[static_cast<size_t>(from)] = with;
  if (g_.value(from).is_output) {
    const std::string name = g_.name(from);
    g_.mark_output(with, name);
    g_.clear_output(from);
  }
  if (g_.value(from).is_gradient) {
    g_.mark_gradient(with);
  }
}

void Rewrite::replace_node(NodeId n, NodeId made) {
  const int outputs = std::min(g_.node(n).output_count, g_.node(made).output_count);
  for (int i = 0; i < outputs; ++i) {
    replace(g_.output(n, i), g_.output(made, i));
  }
  erase(n);
}

void Rewrite::erase(NodeId n) {
  if (!is_erased(n)) {
    is_gone_[static_cast<size_t>(n)] = true;
    gone_.push_back(n);
  }
}

ValueId Rewrite::now(ValueId v) const {
  const auto i = static_cast<size_t>(v);
  return i < to_.size() && to_[i] != kNoValue ? to_[i] : v;
}

void Rewrite::finish(std::span<ParameterGradient> gradients) {
  if (!gone_.empty()) {
    g_.replace_uses(to_);
    for (NodeId n : gone_) {
      g_.erase(n);
    }
  }
  g_.set_cursor(kNoNode);
  g_.set_scope(scope_);
  g_.set_phase(phase_);
  for (ParameterGradient& p : gradients) {
    p.gradient = now(p.gradient);
  }
}

}  // namespace lithe
