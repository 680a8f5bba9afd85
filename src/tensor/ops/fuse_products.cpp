#include "tensor/ops/fuse_products.h"

#include <vector>

#include "tensor/graph/rewrite.h"
#include "tensor/ops/linear_activation.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/processors.h"

namespace lithe {
namespace {

// Tiles enough that every processor has one to multiply while it finishes another.
bool has_work_enough(int64_t rows, int64_t columns) {
  constexpr int64_t kTile = kFinishedRows * kFinishedColumns;
  return rows * columns >= 2 * kProcessors * kTile;
}

class ProductFusion {
 public:
  explicit ProductFusion(Graph& g) : g_(g), readers_(g), rewrite_(g) {}

  int run(std::span<ParameterGradient> gradients) {
    int fused = 0;
    for (const NodeId n : g_.order()) {
      rewrite_.at(n);
      fused += fuse(n) ? 1 : 0;
    }
    rewrite_.finish(gradients);
    return fused;
  }

 private:
  bool fuse(NodeId n) {
    const OpDef* op = g_.node(n).op;
    if (op == &activation_codes_op) {
      const NodeId product = product_of(n, linear_op);
      return product != kNoNode && g_.attr<LinearAttrs>(product).activation == Activation::none &&
             replace(n, product, linear_activation_codes_op, g_.attr<ActivationCodesAttrs>(n));
    }
    if (op == &activation_codes_grad_op) {
      const NodeId product = product_of(n, matmul_op);
      return product != kNoNode && is_dy_by_weight(product) &&
             replace(n, product, matmul_activation_codes_grad_op,
                     g_.attr<ActivationCodesGradAttrs>(n));
    }
    return false;
  }

  // The node that makes the first input of `n` for it alone, in its phase.
  NodeId product_of(NodeId n, const OpDef& op) const {
    const ValueId v = g_.in(n, 0);
    const NodeId made = readers_.sole_source(g_, v, op);
    if (made == kNoNode || g_.node(made).phase != g_.node(n).phase) {
      return kNoNode;
    }
    const Shape& a = g_.shape(g_.in(made, 0));
    const Shape& c = g_.shape(v);
    const int64_t rows = c.product(0, c.rank() - 1);
    const bool fits = a.rank() >= 2 && c.rank() == a.rank() && has_work_enough(rows, c.back()) &&
                      is_finished_in_registers(g_.dtype(v), rows, c.back(), a.back());
    return fits ? made : kNoNode;
  }

  bool is_dy_by_weight(NodeId n) const {
    const auto attrs = g_.attr<MatmulAttrs>(n);
    const bool plain = !attrs.transpose_a && !attrs.transpose_b && attrs.alpha == 1;
    const bool adds = g_.node(n).input_count > 2 && g_.in(n, 2) != kNoValue;
    return plain && !adds && g_.shape(g_.in(n, 1)).rank() == 2;
  }

  template <typename A>
  bool replace(NodeId n, NodeId product, const OpDef& op, const A& attrs) {
    std::vector<ValueId> inputs(g_.inputs(product).begin(), g_.inputs(product).end());
    if (&op == &matmul_activation_codes_grad_op) {
      inputs.resize(2);
    }
    inputs.insert(inputs.end(), g_.inputs(n).begin() + 1, g_.inputs(n).end());
    rewrite_.replace_node(n, g_.emit_node(op, inputs, attrs));
    rewrite_.erase(product);
    return true;
  }

  Graph& g_;
  Readers readers_;
  Rewrite rewrite_;
};

}  // namespace

int fuse_products(Graph& graph, std::span<ParameterGradient> gradients) {
  return ProductFusion(graph).run(gradients);
}

}  // namespace lithe
