// What backward reads of the forward pass decides what must be kept: a frozen parameter drops its
// reads.
#include <doctest/doctest.h>

#include <algorithm>

#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"

using namespace lithe;

namespace {

bool backward_reads(const Graph& g, ValueId v) {
  const std::vector<NodeId> order = g.order();
  return std::any_of(order.begin(), order.end(), [&](NodeId n) {
    const auto in = g.inputs(n);
    return g.node(n).phase == Phase::backward && std::find(in.begin(), in.end(), v) != in.end();
  });
}

struct Net {
  SlotTable slots;
  Graph g{slots};
  ValueId x = g.input("x", DType::f32, {6, 8});
  ValueId w = g.input("w", DType::f32, {4, 8});
  ValueId b = g.input("b", DType::f32, {4});
  ValueId gamma = g.input("gamma", DType::f32, {8});
  ValueId beta = g.input("beta", DType::f32, {8});
};

}  // namespace

TEST_CASE("a frozen linear layer reads no input in backward, its bias only dy") {
  Net n;
  const LinearOut out = linear(n.g, n.x, n.w, n.b, Activation::gelu);
  SUBCASE("bias alone") {
    const ValueId wanted[] = {n.b};
    gradients(n.g, out.y, 1, wanted);
    CHECK_FALSE(backward_reads(n.g, n.x));
    CHECK_FALSE(backward_reads(n.g, n.w));
  }
  SUBCASE("input and bias") {
    const ValueId wanted[] = {n.x, n.b};
    gradients(n.g, out.y, 1, wanted);
    CHECK_FALSE(backward_reads(n.g, n.x));
    CHECK(backward_reads(n.g, n.w));
  }
  SUBCASE("weight alone") {
    const ValueId wanted[] = {n.w};
    gradients(n.g, out.y, 1, wanted);
    CHECK_FALSE(backward_reads(n.g, n.w));
  }
  CHECK(backward_reads(n.g, out.pre_activation) == true);
  CHECK_FALSE(backward_reads(n.g, out.y));
}

TEST_CASE("relu's linear layer keeps the output instead of the pre-activation") {
  Net n;
  const LinearOut out = linear(n.g, n.x, n.w, n.b, Activation::relu);
  const ValueId wanted[] = {n.x};
  gradients(n.g, out.y, 1, wanted);
  CHECK(backward_reads(n.g, out.y));
  CHECK_FALSE(backward_reads(n.g, out.pre_activation));
}

TEST_CASE("layer norm's beta alone reads no input") {
  Net n;
  const ValueId y = layer_norm(n.g, n.x, n.gamma, n.beta, 1e-5);
  const ValueId wanted[] = {n.beta};
  gradients(n.g, y, 1, wanted);
  CHECK_FALSE(backward_reads(n.g, n.x));
}

TEST_CASE("the fused attention keeps no [T, S] matrix") {
  SlotTable slots;
  Graph g(slots);
  const ValueId q = g.input("q", DType::f32, {2, 50, 4, 16});
  const ValueId k = g.input("k", DType::f32, {2, 50, 4, 16});
  const ValueId v = g.input("v", DType::f32, {2, 50, 4, 16});
  const ValueId y = attention(g, q, k, v, {.scale = 0.25});
  const ValueId wanted[] = {q, k, v};
  gradients(g, y, 1, wanted);
  for (NodeId n : g.order()) {
    for (ValueId out : g.outputs(n)) {
      CHECK(g.shape(out).numel() <= 2 * 50 * 4 * 16);
    }
  }
}

TEST_CASE("shape rules refuse with both shapes") {
  Net n;
  CHECK_THROWS_WITH_AS(matmul(n.g, n.x, n.w),
                       "[matmul] [6, 8] times [4, 8]: inner dimensions 8 and 4 differ", ShapeError);
  CHECK_THROWS_AS(linear(n.g, n.w, n.gamma, kNoValue), ShapeError);
  CHECK_THROWS_AS(layer_norm(n.g, n.x, n.b, n.beta, 1e-5), ShapeError);
  CHECK_THROWS_AS(group_norm(n.g, n.x, n.gamma, n.beta, 3, 1e-5), ShapeError);
  CHECK_THROWS_AS(attention(n.g, n.x, n.x, n.x, {}), ShapeError);
}
