// Rewrite rules against the graphs they start from.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "run_op.h"
#include "tensor/core/philox.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/fuse.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/residual_norm.h"

using namespace lithe;  // NOLINT

namespace {

void check_close(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].as<float>();
    const auto y = b[i].as<float>();
    REQUIRE(x.size() == y.size());
    for (size_t k = 0; k < x.size(); ++k) {
      CHECK(x[k] == doctest::Approx(y[k]).epsilon(1e-4));
    }
  }
}

// Two blocks of a transformer's kind: the sums are read by the norm and by the next sum.
std::vector<ValueId> stream(Graph& g, const std::vector<ValueId>& in, bool drop, bool fuse) {
  const ValueId x = in[0];
  const ValueId w = in[1];
  const ValueId gamma = in[2];
  const ValueId beta = in[3];
  const auto branch = [&](ValueId v, uint64_t key) {
    const ValueId y = matmul(g, v, w);
    return drop ? dropout(g, y, in[4], {.p = 0.25, .key = key}) : y;
  };
  const ValueId first = add(g, branch(x, 1), x);
  const ValueId normed = layer_norm(g, first, gamma, beta, 1e-5);
  const ValueId second = add(g, normed, branch(normed, 2));
  const ValueId both = add(g, layer_norm(g, second, gamma, beta, 1e-5), first);
  const std::array<ValueId, 4> wanted = {x, w, gamma, beta};
  if (fuse) {
    CHECK(fuse_residual_norms(g) == 2);
    CHECK(count_nodes(g, residual_norm_op) == 2);
    CHECK(count_nodes(g, layer_norm_op) == 0);
    CHECK(count_nodes(g, dropout_op) == 0);
  }
  std::vector<ValueId> out;
  const ValueId loss = reduce_sum(g, mul(g, both, both), {0, 1});
  for (const ParameterGradient& p : gradients(g, loss, 1.0, wanted)) {
    out.push_back(p.gradient);
  }
  if (fuse) {
    const int before = count_nodes(g, add_op);
    const int fused = fuse_sums(g);
    CHECK(fused > 0);
    CHECK(count_nodes(g, add_op) == before - fused);
  }
  out.push_back(loss);
  verify(g, "the test's rewriting");
  return out;
}

}  // namespace

TEST_CASE("fused sums, norms and dropout give the values and gradients of the chain") {
  const std::array<int64_t, 2> numbers = {7, 3};
  const std::vector<Tensor> inputs = {random_tensor({6, 16}, 1), random_tensor({16, 16}, 2),
                                      random_tensor({16}, 3), random_tensor({16}, 4),
                                      Tensor::from<int64_t>({2}, numbers)};
  for (const bool drop : {false, true}) {
    CAPTURE(drop);
    const auto plain = run_graph(inputs, [&](Graph& g, const std::vector<ValueId>& in) {
      return stream(g, in, drop, false);
    });
    const auto fused = run_graph(inputs, [&](Graph& g, const std::vector<ValueId>& in) {
      return stream(g, in, drop, true);
    });
    check_close(fused, plain);
  }
}

TEST_CASE("layers of one input become a stack whose outputs lie next to one another") {
  std::vector<Tensor> inputs = {random_tensor({10, 64}, 1)};
  for (uint64_t i = 0; i < 3; ++i) {
    inputs.push_back(random_tensor({64, 64}, 2 + i));
    inputs.push_back(random_tensor({64}, 12 + i));
  }
  const auto run = [&](bool fuse) {
    return run_graph(inputs, [&](Graph& g, const std::vector<ValueId>& in) {
      std::vector<ValueId> y;
      for (size_t i = 0; i < 3; ++i) {
        const ValueId layer = linear(g, in[0], in[1 + 2 * i], in[2 + 2 * i]).y;
        y.push_back(reshape(g, layer, {10, 8, 8}));
      }
      if (fuse) {
        CHECK(fuse_parallel_linears(g) == 1);
        CHECK(count_nodes(g, linear_op) == 0);
      }
      const ValueId both = concat(g, y, 1);  // one reader of all, as attention is
      const ValueId loss = reduce_sum(g, mul(g, both, both), {0, 1, 2});
      std::vector<ValueId> out = {loss};
      for (const ParameterGradient& p : gradients(g, loss, 1.0, in)) {
        out.push_back(p.gradient);
      }
      if (fuse) {
        g.mark_output(loss, "loss");
        const Plan plan = make_plan(g, DeviceKind::cpu);
        for (NodeId n : plan.order) {
          if (g.node(n).op == &linear_stack_op) {
            const auto offset = [&](int i) {
              return plan.placement[static_cast<size_t>(g.output(n, i))].offset;
            };
            CHECK(offset(1) - offset(0) == g.bytes(g.output(n, 0)));
            CHECK(offset(2) - offset(1) == g.bytes(g.output(n, 1)));
          }
        }
        g.clear_output(loss);
      }
      return out;
    });
  };
  // Gradients are completed in another order; the loss comes first, so compare sorted norms.
  const auto norms = [](const std::vector<Tensor>& tensors) {
    std::vector<double> out;
    for (const Tensor& t : tensors) {
      double sum = 0;
      for (float v : t.as<float>()) {
        sum += static_cast<double>(v) * static_cast<double>(v);
      }
      out.push_back(sum);
    }
    std::sort(out.begin(), out.end());
    return out;
  };
  const std::vector<double> a = norms(run(true));
  const std::vector<double> b = norms(run(false));
  REQUIRE(a.size() == 8);
  REQUIRE(b.size() == 8);
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i] == doctest::Approx(b[i]).epsilon(1e-5));
  }
}

TEST_CASE("what others read before the norm, or another shape, is left alone") {
  const SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {4, 8});
  const ValueId y = g.input("y", DType::f32, {4, 8});
  const ValueId row = g.input("row", DType::f32, {8});
  const ValueId early = add(g, x, y);
  const ValueId reader = scale(g, early, 2);
  const ValueId spread = add(g, x, row);
  g.mark_output(reader, "reader");
  g.mark_output(layer_norm(g, early, row, row, 1e-5), "a");
  g.mark_output(layer_norm(g, spread, row, row, 1e-5), "b");
  CHECK(fuse_residual_norms(g) == 0);
  const ValueId product = matmul(g, x, y, {.transpose_b = true});
  g.mark_output(add(g, product, g.input("c", DType::f32, {4, 4})), "c");
  g.mark_output(scale(g, product, 3), "d");  // a second reader
  CHECK(fuse_sums(g) == 0);
  verify(g, "the test's rewriting");
}
