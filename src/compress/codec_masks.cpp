#include "compress/codec_masks.h"

#include "tensor/graph/rewrite.h"
#include "tensor/ops/dropout_mask.h"

namespace lithe {

std::vector<SavedValue> dropout_sites(const Graph& g) {
  std::vector<SavedValue> out;
  for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
    if (g.node(n).op == &dropout_op && g.node(n).phase == Phase::forward) {
      out.push_back({g.output(n, 0), saved_role::kDropoutMask, {}});
    }
  }
  return out;
}

void store_dropout_masks(Graph& g, const std::vector<StoredMask>& masks) {
  Rewrite rewrite(g);
  for (const StoredMask& m : masks) {
    const NodeId n = g.value(m.dropped).producer;
    const auto attrs = g.attr<DropoutAttrs>(n);
    const std::array<ValueId, 2> in = {g.in(n, 0), g.in(n, 1)};  // x, rng
    rewrite.at(n);
    const ValueId mask = dropout_mask(g, in[1], attrs, g.shape(in[0]), m.packed);
    rewrite.replace(m.dropped, dropout_apply(g, in[0], mask, attrs, m.packed));
    rewrite.erase(n);
  }
  rewrite.finish();
}

}  // namespace lithe
