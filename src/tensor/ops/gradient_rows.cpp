#include "tensor/ops/gradient_rows.h"

#include <vector>

#include "tensor/ops/embedding.h"

namespace lithe {
namespace {

// By value: whether a node reads it.
std::vector<bool> read_values(const Graph& g) {
  std::vector<bool> read(static_cast<size_t>(g.value_count()), false);
  for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
    for (ValueId v : g.inputs(n)) {
      if (v != kNoValue) {
        read[static_cast<size_t>(v)] = true;
      }
    }
  }
  return read;
}

// Whether rows and their map take less memory than the table's gradient.
bool saves(const Graph& g, NodeId made) {
  const Shape& table = g.shape(g.output(made, 0));
  const int64_t ids = g.shape(g.in(made, 1)).numel();
  const Shape rows = {ids, table[1]};
  return ids < table[0] &&
         byte_size(g.dtype(g.output(made, 0)), rows) + byte_size(DType::i32, Shape{table[0]}) <
             g.bytes(g.output(made, 0));
}

}  // namespace

int use_gradient_rows(Graph& g, std::span<ParameterGradient> gradients) {
  const std::vector<bool> read = read_values(g);
  const ScopeId scope = g.current_scope();
  const Phase phase = g.phase();
  int replaced = 0;
  for (ParameterGradient& p : gradients) {
    const NodeId made = g.value(p.gradient).producer;
    if (made == kNoNode || g.node(made).op != &embedding_grad_op ||
        read[static_cast<size_t>(p.gradient)] || g.value(p.gradient).is_output || !saves(g, made)) {
      continue;
    }
    g.set_cursor(made);
    g.set_scope(g.node(made).scope);
    g.set_phase(g.node(made).phase);
    const std::vector<ValueId> inputs(g.inputs(made).begin(), g.inputs(made).end());
    const NodeId rows = g.emit_node(embedding_grad_rows_op, inputs, g.attr<EmbeddingAttrs>(made));
    p.gradient = g.output(rows, 0);
    p.rows = g.output(rows, 1);
    g.mark_gradient(p.gradient);
    g.mark_gradient(p.rows);
    g.erase(made);
    ++replaced;
  }
  g.set_cursor(kNoNode);
  g.set_scope(scope);
  g.set_phase(phase);
  return replaced;
}

}  // namespace lithe
