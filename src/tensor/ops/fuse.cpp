#include "tensor/ops/fuse.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "tensor/graph/rewrite.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/residual_norm.h"

namespace lithe {
namespace {

constexpr size_t kMostStacked = InferContext::kMaxOutputs;

// The node that made v, where v is its only purpose.
NodeId sole_producer(const Graph& g, const Readers& readers, ValueId v) {
  const Value& value = g.value(v);
  return readers.count(v) == 1 && !value.is_output && !value.is_gradient ? value.producer : kNoNode;
}
// Where it is of this op.
NodeId sole_producer(const Graph& g, const Readers& readers, ValueId v, const OpDef& op) {
  const NodeId n = sole_producer(g, readers, v);
  return n != kNoNode && g.node(n).op == &op ? n : kNoNode;
}

// Products that may add to a value: which input that is, and such a product anew.
int addend_input(const OpDef* op) {
  return op == &matmul_op ? 2 : op == &linear_packed_dx_op ? 1 : -1;
}
ValueId addend_of(const Graph& g, NodeId n) {
  const int i = addend_input(g.node(n).op);
  return i < g.node(n).input_count ? g.in(n, i) : kNoValue;
}
ValueId product_with(Graph& g, NodeId n, ValueId addend) {
  const OpDef& op = *g.node(n).op;
  const Attrs attrs = g.node(n).attrs;
  const auto read = g.inputs(n);
  std::vector<ValueId> inputs(read.begin(), read.end());
  const auto at = static_cast<size_t>(addend_input(&op));
  inputs.resize(std::max(inputs.size(), at + 1));
  inputs[at] = addend;
  return g.output(g.emit_node(op, inputs, attrs), 0);
}

bool same_type(const Graph& g, ValueId a, ValueId b) {
  return g.dtype(a) == g.dtype(b) && g.shape(a) == g.shape(b);
}

}  // namespace

int fuse_residual_norms(Graph& g) {
  const Readers readers(g);
  Rewrite rewrite(g);
  int rewritten = 0;
  for (const NodeId norm : g.order()) {
    if (g.node(norm).op != &layer_norm_op) {
      continue;
    }
    const ValueId sum = g.in(norm, 0);
    const NodeId add = g.value(sum).producer;
    // The sum is made where the norm stands, so nobody may read it earlier.
    if (add == kNoNode || g.node(add).op != &add_op || g.value(sum).is_output ||
        readers.position(readers.first(sum)) < readers.position(norm) ||
        !same_type(g, g.in(add, 0), sum) || !same_type(g, g.in(add, 1), sum)) {
      continue;
    }
    ResidualNormAttrs attrs;
    attrs.eps = g.attr<NormAttrs>(norm).eps;
    ValueId y = g.in(add, 0);
    ValueId residual = g.in(add, 1);
    ValueId rng = kNoValue;
    NodeId drop = sole_producer(g, readers, y, dropout_op);
    if (drop == kNoNode) {
      drop = sole_producer(g, readers, residual, dropout_op);
      if (drop != kNoNode) {
        std::swap(y, residual);
      }
    }
    if (drop != kNoNode && g.attr<DropoutAttrs>(drop).bits != 16) {
      continue;  // masks that the fused op does not draw
    }
    if (drop != kNoNode) {
      y = g.in(drop, 0);
      rng = g.in(drop, 1);
      attrs.dropout = g.attr<DropoutAttrs>(drop);
    }
    rewrite.at(norm);
    const ResidualNormOut out =
        residual_norm(g, y, residual, g.in(norm, 1), g.in(norm, 2), attrs, rng);
    rewrite.replace(sum, out.sum);
    rewrite.replace(g.output(norm, 0), out.normed);
    rewrite.erase(norm);
    rewrite.erase(add);
    if (drop != kNoNode) {
      rewrite.erase(drop);
    }
    ++rewritten;
  }
  rewrite.finish();
  return rewritten;
}

int fuse_parallel_linears(Graph& g) {
  const Readers readers(g);
  Rewrite rewrite(g);
  int rewritten = 0;
  const auto bias_of = [&](NodeId n) { return g.node(n).input_count > 2 ? g.in(n, 2) : kNoValue; };
  const auto is_leaf = [&](ValueId v) { return v == kNoValue || g.value(v).producer == kNoNode; };
  // The stack stands where its first layer does, so the weights of all must be there.
  const auto fits = [&](NodeId n) {
    return g.node(n).op == &linear_op && g.attr<LinearAttrs>(n).activation == Activation::none &&
           is_leaf(g.in(n, 1)) && is_leaf(bias_of(n));
  };
  std::vector<NodeId> done;
  for (const NodeId first : g.order()) {
    if (!fits(first) || std::find(done.begin(), done.end(), first) != done.end()) {
      continue;
    }
    std::vector<NodeId> layers;
    for (NodeId n = first; n != kNoNode && layers.size() < kMostStacked; n = g.next(n)) {
      // Between them there is little more than views.
      if (readers.position(n) > readers.position(first) + 3 * static_cast<int>(kMostStacked)) {
        break;
      }
      if (fits(n) && g.in(n, 0) == g.in(first, 0) && same_type(g, g.in(n, 1), g.in(first, 1)) &&
          (bias_of(n) == kNoValue) == (bias_of(first) == kNoValue)) {
        layers.push_back(n);
      }
    }
    if (layers.size() < 2) {
      continue;
    }
    std::vector<ValueId> weights;
    std::vector<ValueId> biases;
    for (NodeId n : layers) {
      weights.push_back(g.in(n, 1));
      if (bias_of(n) != kNoValue) {
        biases.push_back(bias_of(n));
      }
    }
    rewrite.at(first);
    const std::vector<ValueId> y = linear_stack(g, g.in(first, 0), weights, biases);
    for (size_t i = 0; i < layers.size(); ++i) {
      rewrite.replace(g.output(layers[i], 0), y[i]);
      rewrite.erase(layers[i]);
      done.push_back(layers[i]);
    }
    ++rewritten;
  }
  rewrite.finish();
  return rewritten;
}

int fuse_sums(Graph& g) {
  const Readers readers(g);
  Rewrite rewrite(g);
  int rewritten = 0;
  std::vector<bool> taken(static_cast<size_t>(g.node_count()), false);
  const auto sole_product = [&](ValueId v) {
    const NodeId n = sole_producer(g, readers, v);
    return n != kNoNode && addend_input(g.node(n).op) >= 0 ? n : kNoNode;
  };
  // The first of the products that add up to v and that nobody else reads.
  const auto product_of = [&](ValueId v) {
    NodeId n = sole_product(v);
    while (n != kNoNode && addend_of(g, n) != kNoValue) {
      n = sole_product(addend_of(g, n));
    }
    return n;
  };
  const auto made_before = [&](ValueId v, NodeId n) {
    const NodeId producer = g.value(v).producer;
    return producer == kNoNode || readers.position(producer) < readers.position(n);
  };
  for (const NodeId add : g.order()) {
    if (g.node(add).op != &add_op) {
      continue;
    }
    const ValueId out = g.output(add, 0);
    if (g.value(out).is_output || g.value(out).is_gradient || !same_type(g, g.in(add, 0), out) ||
        !same_type(g, g.in(add, 1), out)) {
      continue;
    }
    // Of two products the later one is taken: its operands are still there.
    const std::array<NodeId, 2> products = {product_of(g.in(add, 0)), product_of(g.in(add, 1))};
    const auto rank = [&](NodeId n) { return n == kNoNode ? -1 : readers.position(n); };
    const int side = rank(products[0]) > rank(products[1]) ? 0 : 1;
    const NodeId product = products[static_cast<size_t>(side)];
    const ValueId addend = g.in(add, 1 - side);
    if (product == kNoNode || taken[static_cast<size_t>(product)]) {
      continue;
    }
    const ValueId made = g.output(product, 0);
    const bool single = made == g.in(add, side);
    if (!single && !made_before(addend, product)) {
      continue;  // the head of a chain stays where it is
    }
    rewrite.at(single ? add : product);
    const ValueId joined = product_with(g, product, addend);
    rewrite.replace(made, joined);
    rewrite.replace(out, single ? joined : g.in(add, side));
    rewrite.erase(add);
    rewrite.erase(product);
    taken[static_cast<size_t>(product)] = true;
    ++rewritten;
  }
  rewrite.finish();
  return rewritten;
}

}  // namespace lithe
