// Gradients on demand: each op's rule is told which input gradients are wanted and emits nodes for
// those only, so what freezing saves is derived from the graph and declared nowhere.
#pragma once

#include <span>
#include <vector>

#include "tensor/graph/graph.h"

namespace lithe {

// What a gradient rule sees of one forward node.
class GradContext {
 public:
  // `partial` holds each value's gradient so far (kNoValue: none).
  GradContext(Graph& of, NodeId forward_node, const std::vector<bool>& wanted,
              std::vector<ValueId>& partial, const OpDef& add)
      : graph(of), node(forward_node), wanted_(wanted), partial_(partial), add_(add) {}

  Graph& graph;  // emit here; phase and scope are set
  NodeId node;

  ValueId in(int i) const { return graph.in(node, i); }
  bool has(int i) const { return i < graph.node(node).input_count && in(i) != kNoValue; }
  ValueId out(int i = 0) const { return graph.output(node, i); }
  const Shape& shape(int i) const { return graph.shape(in(i)); }
  template <typename T>
  T attr() const {
    return graph.attr<T>(node);
  }
  // Whether input i's gradient is asked for; absent inputs never are.
  bool wants(int i) const { return has(i) && wanted(in(i)); }
  // The same of any value of the forward graph.
  bool wanted(ValueId v) const { return v != kNoValue && wanted_[static_cast<size_t>(v)]; }
  // Input i's gradient before this node adds to it. kNoValue: no later node has read input i, or
  // nothing has come back from there.
  ValueId arrived(int i) const { return partial_[static_cast<size_t>(in(i))]; }
  // The gradient that arrived at output i, or kNoValue.
  ValueId dout(int i = 0) const { return partial_[static_cast<size_t>(out(i))]; }
  // Adds `grad` to input i's gradient; its shape and dtype must be the input's.
  void set(int i, ValueId grad);

 private:
  const std::vector<bool>& wanted_;
  std::vector<ValueId>& partial_;
  const OpDef& add_;
};

struct ParameterGradient {
  ValueId parameter = kNoValue;
  ValueId gradient = kNoValue;
  // Of a table of which few rows have a gradient: where each row's lies in `gradient` [rows, H],
  // int32 [V]; -1: nowhere, it is zero. kNoValue: the gradient has the parameter's shape.
  ValueId rows = kNoValue;
};

// Appends the backward nodes of `loss` (with gradient `seed`, of the loss's shape) for `wanted`
// leaves and returns the gradients that exist, in the order in which they become complete. Values
// are marked as gradients. `add` joins the contributions of several readers. Throws GraphError
// where a gradient must pass an op that has none.
std::vector<ParameterGradient> build_gradients(Graph& graph, ValueId loss, ValueId seed,
                                               std::span<const ValueId> wanted, const OpDef& add);

// Replaces the nodes that `choose` accepts by their definitions in basic ops; returns how many.
int expand(Graph& graph, bool (*choose)(const Graph&, NodeId));

}  // namespace lithe
