#include "compress/codec_norms.h"

#include "tensor/ops/elementwise.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/normalized_rows.h"
#include "tensor/ops/residual_norm.h"

namespace lithe {
namespace {

// Operands of the ops that read a layer norm's input in backward.
constexpr int kInput = 1;
constexpr int kMean = 2;
constexpr int kRstd = 3;

bool reads_layer_norm(const Graph& g, NodeId n) {
  const OpDef* op = g.node(n).op;
  return op == &layer_norm_dx_op || op == &layer_norm_dgamma_op || op == &residual_norm_grad_op;
}

void place_before(Graph& g, NodeId reader) {
  g.set_phase(g.node(reader).phase);
  g.set_scope(g.node(reader).scope);
  g.set_cursor(reader);
}

ValueId zeros_like(Graph& g, ValueId v) {
  return g.emit(fill_op, {}, FillAttrs{0, g.dtype(v), g.shape(v)});
}

}  // namespace

std::string normalized_refusal(const Graph& g, const SavedValue& x) {
  ValueId mean = kNoValue;
  for (const SavedReader& r : x.readers) {
    if (!reads_layer_norm(g, r.node) || r.input != kInput || g.in(r.node, kInput) != x.value) {
      return fmt::format("is read by {} too, which wants it as it is", g.node(r.node).op->name);
    }
    const ValueId of_reader = g.in(r.node, kMean);
    const NodeId made = g.value(of_reader).producer;
    if (made == kNoNode || g.node(made).phase != Phase::forward ||
        (mean != kNoValue && mean != of_reader)) {
      return "is read with several statistics, or with ones that are computed again";
    }
    mean = of_reader;
  }
  return {};
}

int64_t normalized_saving(const Graph& g, const SavedValue& x) {
  return g.bytes(g.in(x.readers.front().node, kMean));
}

void keep_normalized(Graph& g, const SavedValue& x, const CodecFormat& format, ValueId rng) {
  const NodeId reader = x.readers.front().node;
  const ValueId mean = g.in(reader, kMean);
  const ValueId rstd = g.in(reader, kRstd);
  const NodeId norm = g.value(mean).producer;
  g.set_phase(Phase::forward);
  g.set_scope(g.node(norm).scope);
  g.set_cursor(g.next(norm));
  const ValueId y = normalize_rows(g, x.value, mean, rstd);
  const Coded coded = format.encode(g, y, g.name(y), rng);
  for (const SavedReader& r : x.readers) {
    place_before(g, r.node);
    const ValueId zeros = zeros_like(g, mean);
    g.replace_input(r.node, kInput, spread_rows(g, format.decode(g, coded), rstd));
    g.replace_input(r.node, kMean, zeros);
  }
}

ValueId norm_input_of(const Graph& g, const SavedValue& statistics) {
  return g.in(statistics.readers.front().node, kInput);
}

std::string statistics_refusal(const Graph& g, const SavedValue& statistics) {
  const OpDef* made = g.node(g.value(statistics.value).producer).op;
  if (made != &layer_norm_op && made != &residual_norm_op) {
    return fmt::format("is made by {}; only layer norm's are computed again", made->name);
  }
  for (const SavedReader& r : statistics.readers) {
    if (!reads_layer_norm(g, r.node)) {
      return fmt::format("is read by {}, which has no input of the norm", g.node(r.node).op->name);
    }
  }
  return {};
}

void regenerate_statistics(Graph& g, const SavedValue& statistics) {
  const NodeId norm = g.value(statistics.value).producer;
  const bool fused = g.node(norm).op == &residual_norm_op;
  const double eps = fused ? g.attr<ResidualNormAttrs>(norm).eps : g.attr<NormAttrs>(norm).eps;
  const ValueId gamma = g.in(norm, fused ? 2 : 1);
  for (const SavedReader& r : statistics.readers) {
    if (g.in(r.node, r.input) != statistics.value) {
      continue;  // done with the other one
    }
    place_before(g, r.node);
    // Backward reads gamma anyway; what it shifts by does not matter here.
    const std::array<ValueId, 3> inputs = {g.in(r.node, kInput), gamma, gamma};
    const NodeId again = g.emit_node(layer_norm_op, inputs, NormAttrs{.eps = eps});
    g.replace_input(r.node, kMean, g.output(again, 1));
    g.replace_input(r.node, kRstd, g.output(again, 2));
  }
}

}  // namespace lithe
