#include "compress/rerun.h"

#include <algorithm>
#include <array>

#include "compress/saved_values.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/residual_norm.h"

namespace lithe {
namespace {

bool is_product(const OpDef* op) {
  constexpr std::array<std::string_view, 4> kFamilies = {"matmul", "linear", "attention", "conv"};
  return std::any_of(kFamilies.begin(), kFamilies.end(),
                     [&](std::string_view family) { return op->name.starts_with(family); });
}

Activation activation_of(const Graph& g, NodeId n) {
  return g.node(n).op == &linear_op ? g.attr<LinearAttrs>(n).activation : Activation::none;
}

}  // namespace

Rerun find_rerun(const Graph& g, ValueId v, const std::function<bool(ValueId)>& kept) {
  const NodeId made = g.value(v).producer;
  const int output = g.value(v).output_index;
  const OpDef* op = g.node(made).op;
  if (output == 0 && activation_of(g, made) != Activation::none) {
    return kept(g.output(made, 1)) ? Rerun{Rerun::Way::activation, ""}
                                   : Rerun{Rerun::Way::none, "its pre-activation is not kept"};
  }
  if (is_product(op)) {
    return {Rerun::Way::none,
            fmt::format("is made by a product ({}); use the recompute pass", op->name)};
  }
  if (op == &residual_norm_op && output == 0 && kept(g.output(made, 1))) {
    return {Rerun::Way::norm, ""};
  }
  for (const ValueId in : g.inputs(made)) {
    const ValueId whole = in == kNoValue ? kNoValue : viewed(g, in);
    if (whole != kNoValue && g.value(whole).producer != kNoNode && !kept(whole)) {
      return {Rerun::Way::none,
              fmt::format("is made from {}, which is not kept itself", g.name(whole))};
    }
  }
  return {Rerun::Way::producer, ""};
}

ValueId emit_rerun(Graph& g, ValueId v, Rerun::Way way) {
  const NodeId made = g.value(v).producer;
  switch (way) {
    case Rerun::Way::activation:
      return activation(g, g.output(made, 1), activation_of(g, made));
    case Rerun::Way::norm:
      return g.output(emit_norm_of_sum(g, made), 0);
    case Rerun::Way::producer: {
      const std::vector<ValueId> inputs(g.inputs(made).begin(), g.inputs(made).end());
      const Attrs attrs = g.node(made).attrs;
      return g.output(g.emit_node(*g.node(made).op, inputs, attrs), g.value(v).output_index);
    }
    case Rerun::Way::none:
      break;
  }
  throw GraphError("codec", "{} cannot be computed again", g.name(v));
}

NodeId emit_norm_of_sum(Graph& g, NodeId n) {
  const NormAttrs attrs{.eps = g.attr<ResidualNormAttrs>(n).eps};
  return g.emit_node(layer_norm_op, std::array{g.output(n, 1), g.in(n, 2), g.in(n, 3)}, attrs);
}

}  // namespace lithe
