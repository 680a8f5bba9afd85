// Attention's gradients in one tensor for one product with the joined projections: where the rule
// packs, where it must not, and what it plans.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "run_op.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/fuse.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/reduce.h"

using namespace lithe;  // NOLINT

namespace {

constexpr int64_t kBatch = 2;
constexpr int64_t kTokens = 8;
constexpr int64_t kHidden = 64;
constexpr int64_t kHeads = 4;

enum class Between { nothing, scaled_query, key_twice, value_first, bias_frozen };

// x, three weights, three biases.
std::vector<Tensor> tensors() {
  std::vector<Tensor> out = {random_tensor({kBatch, kTokens, kHidden}, 1)};
  for (uint64_t i = 0; i < 3; ++i) {
    out.push_back(random_tensor({kHidden, kHidden}, 2 + i));
  }
  for (uint64_t i = 0; i < 3; ++i) {
    out.push_back(random_tensor({kHidden}, 12 + i));
  }
  return out;
}

// Self-attention with a residual; the gradients of all inputs, in their order.
std::vector<ValueId> self_attention(Graph& g, const std::vector<ValueId>& in, Between between,
                                    bool fuse) {
  const ValueId x = scale(g, in[0], 2.0);  // its gradient goes on from here
  std::vector<ValueId> y;
  for (size_t i = 0; i < 3; ++i) {
    // The stack has the layers in the order of the graph.
    const size_t layer = between == Between::value_first ? (i + 2) % 3 : i;
    y.push_back(linear(g, x, in[1 + layer], in[4 + layer]).y);
  }
  if (between == Between::value_first) {
    std::rotate(y.begin(), y.begin() + 1, y.end());
  }
  for (ValueId& v : y) {
    v = reshape(g, v, {kBatch, kTokens, kHeads, kHidden / kHeads});
  }
  if (between == Between::scaled_query) {
    y[0] = scale(g, y[0], 0.5);
  }
  const ValueId mixed =
      reshape(g, attention(g, y[0], y[1], y[2], {.scale = 0.2}), {kBatch, kTokens, kHidden});
  ValueId out = add(g, mixed, x);
  if (between == Between::key_twice) {
    out = add(g, out, reshape(g, y[1], {kBatch, kTokens, kHidden}));
  }
  if (fuse) {
    CHECK(fuse_parallel_linears(g) == 1);
  }
  const ValueId loss = reduce_sum(g, mul(g, out, out), {0, 1, 2});
  std::vector<ValueId> wanted = in;
  if (between == Between::bias_frozen) {
    std::erase(wanted, in[5]);
  }
  const std::vector<ParameterGradient> found = gradients(g, loss, 1.0, wanted);
  std::vector<ValueId> result;
  for (const ValueId v : wanted) {
    const auto at = std::find_if(found.begin(), found.end(),
                                 [&](const ParameterGradient& p) { return p.parameter == v; });
    REQUIRE(at != found.end());
    result.push_back(at->gradient);
  }
  if (fuse) {
    fuse_sums(g);
  }
  verify(g, "the rule");
  return result;
}

NodeId node_of(const Graph& g, const OpDef& op) {
  for (const NodeId n : g.order()) {
    if (g.node(n).op == &op) {
      return n;
    }
  }
  return kNoNode;
}

}  // namespace

TEST_CASE("attention's gradients are packed only where the three layers alone read them") {
  for (const Between between : {Between::nothing, Between::scaled_query, Between::key_twice,
                                Between::value_first, Between::bias_frozen}) {
    CAPTURE(static_cast<int>(between));
    const bool packs = between == Between::nothing;
    const auto run = [&](bool fuse) {
      return run_graph(tensors(), [&](Graph& g, const std::vector<ValueId>& in) {
        const std::vector<ValueId> out = self_attention(g, in, between, fuse);
        CHECK(count_nodes(g, attention_grad_op) == 1);
        const auto attrs = g.attr<AttentionGradAttrs>(node_of(g, attention_grad_op));
        CHECK(attrs.packed == (fuse && packs));
        CHECK(attrs.bias_sums == (fuse && packs));
        CHECK(count_nodes(g, linear_packed_dx_op) == (fuse && packs ? 1 : 0));
        CHECK(count_nodes(g, linear_packed_dw_op) == (fuse && packs ? 1 : 0));
        return out;
      });
    };
    const std::vector<Tensor> packed = run(true);
    const std::vector<Tensor> apart = run(false);
    REQUIRE(packed.size() == apart.size());
    for (size_t i = 0; i < packed.size(); ++i) {
      CAPTURE(i);
      const auto a = packed[i].as<float>();
      const auto b = apart[i].as<float>();
      REQUIRE(a.size() == b.size());
      float worst = 0;
      for (size_t k = 0; k < a.size(); ++k) {
        worst = std::max(worst, std::abs(a[k] - b[k]) / (1 + std::abs(b[k])));
      }
      CHECK(worst < 1e-4f);
    }
  }
}

TEST_CASE("a packed backward adds the residual's gradient, and plans no more") {
  int64_t peak[2] = {};
  for (const bool packs : {false, true}) {
    SlotTable slots;
    std::vector<SlotId> parameters;
    const std::vector<Tensor> all = tensors();
    for (size_t i = 1; i < all.size(); ++i) {
      parameters.push_back(slots.add({.name = fmt::format("p{}", i), .shape = all[i].shape()}));
    }
    Graph g(slots);
    std::vector<ValueId> in = {g.input("x", DType::f32, all[0].shape())};
    for (const SlotId slot : parameters) {
      in.push_back(g.leaf(slot));
    }
    const std::vector<ValueId> out =
        self_attention(g, in, packs ? Between::nothing : Between::value_first, true);
    for (const ValueId v : out) {
      g.mark_output(v, fmt::format("gradient of {}", v));
    }
    g.eliminate_dead();
    const Plan plan = make_plan(g, DeviceKind::cuda);
    for (int p = 0; p < static_cast<int>(plan.order.size()); ++p) {
      int64_t live = 0;
      for (const Buffer& b : plan.buffers) {
        live += b.value != kNoValue && b.first <= p && p <= b.last ? b.bytes : 0;
      }
      peak[packs] = std::max(peak[packs], live);
    }
    if (!packs) {
      continue;
    }
    const NodeId dx = node_of(g, linear_packed_dx_op);
    CHECK(g.in(dx, 1) != kNoValue);
    CHECK(count_nodes(g, matmul_op) == 0);
    const NodeId dw = node_of(g, linear_packed_dw_op);
    const auto offset = [&](int i) {
      return plan.placement[static_cast<size_t>(g.output(dw, i))].offset;
    };
    for (const int i : {0, 1}) {  // dW_1 .. dW_3
      CHECK(offset(i + 1) - offset(i) == g.bytes(g.output(dw, i)));
    }
  }
  CHECK(peak[1] <= peak[0]);
}
