#include "tensor/ops/attention_dropout.h"

#include "tensor/ops/attention.h"
#include "tensor/ops/dropout.h"

namespace lithe {

int drop_attention_values(Graph& g) {
  const ScopeId scope = g.current_scope();
  std::vector<ValueId> to(static_cast<size_t>(g.value_count()), kNoValue);
  std::vector<NodeId> gone;
  for (const NodeId n : g.order()) {
    if (g.node(n).op != &attention_op || g.attr<AttentionAttrs>(n).dropout == 0) {
      continue;
    }
    auto attrs = g.attr<AttentionAttrs>(n);
    const std::vector<ValueId> in(g.inputs(n).begin(), g.inputs(n).end());
    g.set_cursor(n);
    g.set_scope(g.node(n).scope);
    const ValueId v = dropout(g, in[2], in[4], {.p = attrs.dropout, .key = attrs.dropout_key});
    attrs.dropout = 0;
    const NodeId made =
        g.emit_node(attention_op, std::array{in[0], in[1], v, in[3], kNoValue}, attrs);
    for (int i = 0; i < g.node(n).output_count; ++i) {
      to[static_cast<size_t>(g.output(n, i))] = g.output(made, i);
    }
    gone.push_back(n);
  }
  if (!gone.empty()) {
    g.replace_uses(to);
  }
  for (const NodeId n : gone) {
    g.erase(n);
  }
  g.set_cursor(kNoNode);
  g.set_scope(scope);
  return static_cast<int>(gone.size());
}

}  // namespace lithe
