#include "tensor/ops/attention_dropout.h"

#include "tensor/graph/rewrite.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/dropout.h"

namespace lithe {

int drop_attention_values(Graph& g) {
  Rewrite rewrite(g);
  int rewritten = 0;
  for (const NodeId n : g.order()) {
    if (g.node(n).op != &attention_op || g.attr<AttentionAttrs>(n).dropout == 0) {
      continue;
    }
    auto attrs = g.attr<AttentionAttrs>(n);
    const std::vector<ValueId> in(g.inputs(n).begin(), g.inputs(n).end());
    rewrite.at(n);
    const ValueId v = dropout(g, in[2], in[4], {.p = attrs.dropout, .key = attrs.dropout_key});
    attrs.dropout = 0;
    rewrite.replace_node(
        n, g.emit_node(attention_op, std::array{in[0], in[1], v, in[3], kNoValue}, attrs));
    ++rewritten;
  }
  rewrite.finish();
  return rewritten;
}

}  // namespace lithe
