// Replacing nodes of a graph: who reads what, and a rewrite that is carried out at its end.
#pragma once

#include <span>
#include <vector>

#include "tensor/graph/gradient.h"

namespace lithe {

// Who reads each value, and where nodes stand, as the graph was then.
class Readers {
 public:
  explicit Readers(const Graph& g);

  int count(ValueId v) const { return count_[static_cast<size_t>(v)]; }
  NodeId first(ValueId v) const { return first_[static_cast<size_t>(v)]; }
  // The node of this op that makes v for one reader alone; none where another one does.
  NodeId sole_source(const Graph& g, ValueId v, const OpDef& op) const;
  int position(NodeId n) const { return position_[static_cast<size_t>(n)]; }

 private:
  std::vector<NodeId> first_;
  std::vector<int> count_;
  std::vector<int> position_;
};

// Until `finish` all nodes, and what they read, stay as they were; new ones are added beside them.
class Rewrite {
 public:
  explicit Rewrite(Graph& g);

  // New nodes stand where `n` does and belong where it belongs.
  void at(NodeId n);
  // `with` takes the place of `from`, as an output and as a gradient too.
  void replace(ValueId from, ValueId with);
  // All outputs that `n` and `made` have in common, and `n` goes.
  void replace_node(NodeId n, NodeId made);
  void erase(NodeId n);
  bool is_erased(NodeId n) const { return is_gone_[static_cast<size_t>(n)]; }
  // What a value is replaced with, itself if with nothing.
  ValueId now(ValueId v) const;
  // Readers of what was replaced read what it was replaced with, `gradients` are followed there;
  // erased nodes go.
  void finish(std::span<ParameterGradient> gradients = {});

 private:
  Graph& g_;
  ScopeId scope_;
  Phase phase_;
  std::vector<ValueId> to_;
  std::vector<NodeId> gone_;
  std::vector<bool> is_gone_;
};

}  // namespace lithe
