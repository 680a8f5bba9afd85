// Bias gradients that come with the pass over dy, against those of a pass of their own.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "run_op.h"
#include "tensor/core/philox.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/residual_norm.h"

using namespace lithe;  // NOLINT

namespace {

constexpr int64_t kRows = 200;  // several ranges of rows
constexpr int64_t kIn = 12;
constexpr int64_t kWidth = 24;

// Nodes of residual_norm_grad that sum for a bias.
int asked(const Graph& g) {
  const std::vector<NodeId> order = g.order();
  return static_cast<int>(std::count_if(order.begin(), order.end(), [&](NodeId n) {
    return g.node(n).op == &residual_norm_grad_op && g.attr<ResidualNormGradAttrs>(n).bias;
  }));
}

struct Inputs {
  ValueId x, weight, bias, residual, gamma, beta, rng, cotangent;
};

std::vector<Tensor> tensors() {
  const std::array<int64_t, 2> numbers = {7, 3};
  return {random_tensor({kRows, kIn}, 1),      random_tensor({kWidth, kIn}, 2),
          random_tensor({kWidth}, 3),          random_tensor({kRows, kWidth}, 4),
          random_tensor({kWidth}, 5),          random_tensor({kWidth}, 6),
          Tensor::from<int64_t>({2}, numbers), random_tensor({kRows, kWidth}, 7)};
}

Inputs inputs_of(const std::vector<ValueId>& in) {
  return {in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7]};
}

// The gradients of `wanted`, in its order.
std::vector<ValueId> gradients_of(Graph& g, ValueId loss, std::span<const ValueId> wanted) {
  const std::vector<ParameterGradient> found = gradients(g, loss, 1.0, wanted);
  std::vector<ValueId> out;
  for (const ValueId v : wanted) {
    const auto at = std::find_if(found.begin(), found.end(),
                                 [&](const ParameterGradient& p) { return p.parameter == v; });
    REQUIRE(at != found.end());
    out.push_back(at->gradient);
  }
  verify(g, "gradients");
  return out;
}

ValueId sum_of_product(Graph& g, ValueId a, ValueId b) {
  return reduce_sum(g, mul(g, a, b), {0, 1});
}

// The same numbers, but from another node: the rules find no linear layer there.
ValueId hidden(Graph& g, ValueId v) { return scale(g, scale(g, v, 2), 0.5); }

// y = linear(x), then the norm of residual + dropout(y), then a loss over both of its outputs.
struct Chain {
  double p = 0;
  bool hide = false;                                             // the layer, from the rules
  enum class Again { none, before, after } again = Again::none;  // another reader of y
};

ValueId loss_of(Graph& g, const Inputs& in, const Chain& chain) {
  const ValueId layer = linear(g, in.x, in.weight, in.bias).y;
  const ValueId y = chain.hide ? hidden(g, layer) : layer;
  const ValueId before = chain.again == Chain::Again::before ? mul(g, y, y) : kNoValue;
  const ResidualNormOut out =
      residual_norm(g, y, in.residual, in.gamma, in.beta,
                    {.eps = 1e-5, .dropout = {.p = chain.p, .key = 9}}, in.rng);
  ValueId both = add(g, mul(g, out.normed, in.cotangent), out.sum);
  if (before != kNoValue) {
    both = add(g, both, before);
  }
  if (chain.again == Chain::Again::after) {
    both = add(g, both, mul(g, y, y));
  }
  return sum_of_product(g, both, in.cotangent);
}

void check_close(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    const auto x = a[i].as<float>();
    const auto y = b[i].as<float>();
    REQUIRE(x.size() == y.size());
    for (size_t k = 0; k < x.size(); ++k) {
      CHECK(x[k] == doctest::Approx(y[k]).epsilon(1e-4));
    }
  }
}

}  // namespace

TEST_CASE("residual_norm_grad sums y's gradient for the bias of the layer before") {
  for (const double p : {0.0, 0.25}) {
    for (const bool alone : {false, true}) {
      CAPTURE(p);
      CAPTURE(alone);
      const auto run = [&](bool hide) {
        return run_graph(tensors(), [&](Graph& g, const std::vector<ValueId>& values) {
          const Inputs in = inputs_of(values);
          const ValueId loss = loss_of(g, in, {.p = p, .hide = hide});
          const std::vector<ValueId> wanted =
              alone ? std::vector<ValueId>{in.bias}
                    : std::vector<ValueId>{in.weight, in.bias, in.residual, in.gamma, in.beta};
          const std::vector<ValueId> out = gradients_of(g, loss, wanted);
          CHECK(asked(g) == (hide ? 0 : 1));
          CHECK(count_nodes(g, linear_dw_op) + count_nodes(g, bias_grad_op) == (hide ? 1 : 0));
          return out;
        });
      };
      check_close(run(false), run(true));
    }
  }
}

TEST_CASE("without a wanted bias nothing is summed") {
  const SlotTable slots;
  for (const bool biased : {false, true}) {
    for (const double p : {0.0, 0.25}) {
      Graph g(slots);
      const std::vector<Tensor> like = tensors();
      std::vector<ValueId> values;
      for (size_t i = 0; i < like.size(); ++i) {
        values.push_back(g.input(fmt::format("in{}", i), like[i].dtype(), like[i].shape()));
      }
      Inputs in = inputs_of(values);
      in.bias = biased ? in.bias : kNoValue;
      const ValueId loss = loss_of(g, in, {.p = p});
      gradients_of(g, loss, std::array{in.weight, in.residual, in.gamma, in.beta});
      CHECK(count_nodes(g, residual_norm_grad_op) == 1);
      CHECK(asked(g) == 0);
    }
  }
}

TEST_CASE("where y is read twice the bias's gradient has all of it") {
  for (const auto again : {Chain::Again::before, Chain::Again::after}) {
    for (const double p : {0.0, 0.25}) {
      CAPTURE(p);
      const auto run = [&](bool hide) {
        return run_graph(tensors(), [&](Graph& g, const std::vector<ValueId>& values) {
          const Inputs in = inputs_of(values);
          const ValueId loss = loss_of(g, in, {.p = p, .hide = hide, .again = again});
          const std::vector<ValueId> out = gradients_of(g, loss, std::array{in.weight, in.bias});
          CHECK(count_nodes(g, linear_dw_op) == 1);
          if (again == Chain::Again::after) {
            CHECK(asked(g) == 0);
          }
          return out;
        });
      };
      check_close(run(false), run(true));
    }
  }
}

TEST_CASE("of two layers that are added before the norm each gets its own sum") {
  // Without dropout one value is the gradient of both; with it the residual's is another.
  for (const double p : {0.0, 0.25}) {
    CAPTURE(p);
    const auto run = [&](bool hide) {
      return run_graph(tensors(), [&](Graph& g, const std::vector<ValueId>& values) {
        const Inputs in = inputs_of(values);
        const ValueId first = linear(g, in.x, in.weight, in.bias).y;
        const ValueId second = linear(g, in.x, in.weight, in.gamma).y;
        const ValueId y = hide ? hidden(g, first) : first;
        const ValueId residual = hide ? hidden(g, second) : second;
        const ResidualNormOut out = residual_norm(
            g, y, residual, in.beta, in.beta, {.eps = 1e-5, .dropout = {.p = p, .key = 9}}, in.rng);
        const ValueId loss = sum_of_product(g, add(g, out.normed, out.sum), in.cotangent);
        const std::vector<ValueId> gradients =
            gradients_of(g, loss, std::array{in.weight, in.bias, in.gamma});
        CHECK(asked(g) == (hide ? 0 : 1));
        CHECK(count_nodes(g, linear_dw_op) == (hide ? 2 : (p > 0 ? 1 : 0)));
        return gradients;
      });
    };
    check_close(run(false), run(true));
  }
}

TEST_CASE("an activation's gradient that others read as well stays as it is") {
  // gelu(layer + residual): one value is the gradient of both.
  const auto run = [&](bool hide) {
    return run_graph(tensors(), [&](Graph& g, const std::vector<ValueId>& values) {
      const Inputs in = inputs_of(values);
      const ValueId layer = linear(g, in.x, in.weight, in.bias).y;
      const ValueId y = hide ? hidden(g, layer) : layer;
      const ValueId active = activation(g, add(g, y, in.residual), Activation::gelu);
      const ValueId loss = sum_of_product(g, active, in.cotangent);
      return gradients_of(g, loss, std::array{in.weight, in.bias, in.residual});
    });
  };
  check_close(run(false), run(true));
}

TEST_CASE("an activation's gradient is summed for the bias of the layer before") {
  for (const Activation kind : {Activation::gelu, Activation::relu}) {
    for (const bool fused : {false, true}) {
      CAPTURE(fused);
      const auto run = [&](bool hide) {
        return run_graph(tensors(), [&](Graph& g, const std::vector<ValueId>& values) {
          const Inputs in = inputs_of(values);
          ValueId active = kNoValue;
          if (fused && !hide) {
            active = linear(g, in.x, in.weight, in.bias, kind).y;
          } else {
            const ValueId layer = linear(g, in.x, in.weight, in.bias).y;
            active = activation(g, hide ? hidden(g, layer) : layer, kind);
          }
          const ValueId loss = sum_of_product(g, active, in.cotangent);
          const std::vector<ValueId> out = gradients_of(g, loss, std::array{in.weight, in.bias});
          CHECK(count_nodes(g, linear_dw_op) == (hide ? 1 : 0));
          return out;
        });
      };
      check_close(run(false), run(true));
    }
  }
}
