// Which products are finished in registers, and what is left of the graph then.
#include <doctest/doctest.h>

#include "run_op.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/fuse_products.h"
#include "tensor/ops/linear_activation.h"
#include "tensor/ops/matmul.h"

using namespace lithe;  // NOLINT

namespace {

const SavedCode kCode{.kind = SavedCode::Kind::fixed_point, .fixed = {.integer = 2, .fraction = 1}};

struct Setting {
  DType dtype = DType::bf16;
  int64_t rows = 34048;
  int64_t columns = 256;
  bool read_twice = false;  // the products' results
  bool adds = false;        // the backward product
};

// A linear layer with GELU, and the gradient through the next layer and through it.
struct Layers {
  explicit Layers(const Setting& s) : graph(slots) {
    Graph& g = graph;
    constexpr int64_t kIn = 16;
    const ValueId x = g.input("x", s.dtype, {2, s.rows / 2, kIn});
    const ValueId w = g.input("w", s.dtype, {s.columns, kIn});
    const ValueId bias = g.input("bias", s.dtype, {s.columns});
    const ValueId next = g.input("next", s.dtype, {kIn, s.columns});
    const ValueId before = linear(g, x, w, bias).y;
    const NodeId activated = g.emit_node(activation_codes_op, std::array{before},
                                         ActivationCodesAttrs{Activation::gelu, kCode, {}});
    g.mark_output(g.output(activated, 0), "y");
    const ValueId addend = s.adds ? g.output(activated, 0) : kNoValue;
    const ValueId dy = matmul(g, x, next, {}, addend);
    const NodeId grad =
        g.emit_node(activation_codes_grad_op, std::array{dy, g.output(activated, 1)},
                    ActivationCodesGradAttrs{{Activation::gelu, true}, kCode});
    g.mark_output(g.output(grad, 0), "dx");
    gradients = {{bias, g.output(grad, 1)}};
    g.mark_output(g.output(grad, 1), "db");
    if (s.read_twice) {
      g.mark_output(scale(g, before, 2), "again");
      g.mark_output(scale(g, dy, 2), "again too");
    }
    fused = fuse_products(g, gradients);
    verify(g, "fusing products");
  }
  int count(const OpDef& op) const { return count_nodes(graph, op); }

  SlotTable slots;
  Graph graph;
  std::vector<ParameterGradient> gradients;
  int fused = 0;
};

}  // namespace

TEST_CASE("products are activated and coded before they reach memory") {
  const Layers block({});
  CHECK(block.fused == 2);
  CHECK(block.count(linear_activation_codes_op) == 1);
  CHECK(block.count(matmul_activation_codes_grad_op) == 1);
  CHECK(block.count(linear_op) + block.count(matmul_op) == 0);
  CHECK(block.count(activation_codes_op) + block.count(activation_codes_grad_op) == 0);
  // The bias's gradient is followed.
  const NodeId made = block.graph.value(block.gradients[0].gradient).producer;
  REQUIRE(made != kNoNode);
  CHECK(block.graph.node(made).op == &matmul_activation_codes_grad_op);
}

TEST_CASE("products that others read, small ones, sums and fp32 stay with the library") {
  CHECK(Layers({.read_twice = true}).fused == 0);
  CHECK(Layers({.adds = true}).fused == 1);
  CHECK(Layers({.dtype = DType::f32}).fused == 0);
  CHECK(Layers({.rows = 16 * 1024}).fused == 0);
  CHECK(Layers({.rows = 40000, .columns = 252}).fused == 0);  // rows of 16 bytes are wanted
}
