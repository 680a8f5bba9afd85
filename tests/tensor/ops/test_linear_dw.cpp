// The gradients of several linear layers' parameters by one op.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "run_op.h"
#include "tensor/core/philox.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/linear_packed.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/reduce.h"

using namespace lithe;  // NOLINT

namespace {

constexpr int64_t kBatch = 4;
constexpr int64_t kTokens = 16;
constexpr int64_t kHidden = 64;

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

std::vector<NodeId> nodes_of(const Graph& g, const OpDef& op) {
  std::vector<NodeId> out = g.order();
  std::erase_if(out, [&](NodeId n) { return g.node(n).op != &op; });
  return out;
}

// The gradients of `wanted` inputs of self-attention, by a stack or by three layers.
std::vector<ValueId> gradients_of(Graph& g, const std::vector<ValueId>& in, bool stack,
                                  const std::vector<size_t>& wanted) {
  std::vector<ValueId> y;
  if (stack) {
    const std::span<const ValueId> all = in;
    y = linear_stack(g, in[0], all.subspan(1, 3), all.subspan(4, 3));
  } else {
    for (size_t i = 1; i <= 3; ++i) {
      y.push_back(linear(g, in[0], in[i], in[3 + i]).y);
    }
  }
  for (ValueId& v : y) {
    v = reshape(g, v, {kBatch, kTokens, 2, kHidden / 2});
  }
  const ValueId mixed = attention(g, y[0], y[1], y[2], {.scale = 0.2});
  const ValueId loss = reduce_sum(g, mul(g, mixed, mixed), {0, 1, 2, 3});
  std::vector<ValueId> leaves;
  for (const size_t i : wanted) {
    leaves.push_back(in[i]);
  }
  const std::vector<ParameterGradient> found = gradients(g, loss, 1.0, leaves);
  std::vector<ValueId> out;
  for (const ValueId leaf : leaves) {
    const auto at = std::find_if(found.begin(), found.end(),
                                 [&](const ParameterGradient& p) { return p.parameter == leaf; });
    REQUIRE(at != found.end());
    out.push_back(at->gradient);
  }
  verify(g, "gradients");
  return out;
}

// Where the values lie: each right behind the one before.
bool are_neighbours(const Graph& g, const Plan& plan, std::span<const ValueId> values) {
  const auto offset = [&](size_t i) {
    return plan.placement[static_cast<size_t>(values[i])].offset;
  };
  for (size_t i = 1; i < values.size(); ++i) {
    if (offset(i) - offset(i - 1) != g.bytes(values[0])) {
      return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("the layers whose weights are wanted share one op, as far as it goes") {
  struct Wanted {
    std::vector<size_t> inputs;  // 0: x, from 1 on weights, from 4 on biases
    size_t stacks, singles, sums;
    size_t packed = 0, packed_dx = 0;
    bool bias_sums = false;
  };
  const Wanted cases[] = {
      // attention's gradients are packed where all three are wanted, and all biases, whose sums
      // come with them, or none
      {{0, 1, 2, 3, 4, 5, 6}, 0, 0, 0, 1, 1, true},
      {{1, 2, 3, 4, 5, 6}, 0, 0, 0, 1, 0, true},
      {{0, 1, 2, 3}, 0, 0, 0, 1, 1},
      {{0, 2, 4, 5, 6}, 0, 0, 0, 1, 1, true},
      {{1, 3, 4, 5, 6}, 0, 0, 0, 1, 0, true},
      {{4, 5, 6}, 0, 0, 0, 0, 0, true},
      {{0, 4, 5, 6}, 0, 0, 0, 0, 1, true},
      {{0, 3}, 0, 0, 0, 1, 1},
      {{0}, 0, 0, 0, 0, 1},
      {{0, 1, 3, 4, 6}, 1, 0, 0},
      {{0, 1, 2, 3, 5}, 1, 1, 0},  // two without a bias, one with it
      {{0, 2, 5}, 0, 1, 0},
      {{1, 3, 5}, 1, 0, 1},
      {{1, 2, 4, 5}, 1, 0, 0},
      {{4, 6}, 0, 0, 2},
  };
  for (const Wanted& w : cases) {
    CAPTURE(w.inputs);
    const auto run = [&](bool stack) {
      return run_graph(tensors(), [&](Graph& g, const std::vector<ValueId>& in) {
        const std::vector<ValueId> out = gradients_of(g, in, stack, w.inputs);
        if (stack) {
          CHECK(nodes_of(g, linear_stack_dw_op).size() == w.stacks);
          CHECK(nodes_of(g, linear_dw_op).size() == w.singles);
          CHECK(nodes_of(g, bias_grad_op).size() == w.sums);
          CHECK(nodes_of(g, linear_packed_dw_op).size() == w.packed);
          CHECK(nodes_of(g, linear_packed_dx_op).size() == w.packed_dx);
          const NodeId attention = nodes_of(g, attention_grad_op).at(0);
          CHECK(g.attr<AttentionGradAttrs>(attention).bias_sums == w.bias_sums);
        }
        return out;
      });
    };
    const std::vector<Tensor> a = run(true);
    const std::vector<Tensor> b = run(false);
    for (size_t i = 0; i < a.size(); ++i) {
      CAPTURE(i);
      float worst = 0;
      for (size_t k = 0; k < a[i].as<float>().size(); ++k) {
        const float y = b[i].as<float>()[k];
        worst = std::max(worst, std::abs(a[i].as<float>()[k] - y) / (1 + std::abs(y)));
      }
      CHECK(worst < 1e-4f);
    }
  }
}

TEST_CASE("what goes in and what comes out lies side by side, for one batched product") {
  for (const bool input : {false, true}) {
    CAPTURE(input);
    const SlotTable slots;
    Graph g(slots);
    std::vector<ValueId> in;
    for (const Tensor& t : tensors()) {
      in.push_back(g.input(fmt::format("in{}", in.size()), t.dtype(), t.shape()));
    }
    std::vector<size_t> wanted = {1, 2, 4, 5};  // all three would be packed
    if (input) {
      wanted.push_back(0);
    }
    for (const ValueId v : gradients_of(g, in, true, wanted)) {
      g.mark_output(v, fmt::format("gradient of {}", v));
    }
    const Plan plan = make_plan(g, DeviceKind::cuda);
    const std::vector<NodeId> stacks = nodes_of(g, linear_stack_dw_op);
    REQUIRE(stacks.size() == 1);
    CHECK(are_neighbours(g, plan, g.inputs(stacks[0]).first(2)));
    CHECK(are_neighbours(g, plan, g.outputs(stacks[0]).first(2)));
    CHECK(are_neighbours(g, plan, g.outputs(stacks[0]).subspan(2)));
  }
}
