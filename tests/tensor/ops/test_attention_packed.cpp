// dq, dk and dv in one tensor against the same in three.
#include <doctest/doctest.h>

#include <cstring>

#include "run_op.h"
#include "tensor/core/philox.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/matmul.h"

using namespace lithe;  // NOLINT

namespace {

struct Size {
  Shape q;
  AttentionAttrs attrs{};
  bool masked = false;
};

Tensor random(const Shape& shape, DType dtype, uint64_t key) {
  Tensor out(DType::f64, shape);
  auto values = out.as<double>();
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 2 * uniform01(philox(key, 1, i).word[0]) - 1;
  }
  return out.to(dtype);
}

std::vector<Tensor> operands(const Size& s, DType dtype) {
  const Shape& q = s.q;
  std::vector<Tensor> out;
  for (uint64_t key = 1; key <= 4; ++key) {
    out.push_back(random(q, dtype, key));
  }
  if (s.masked) {
    Tensor mask(DType::boolean, {q[0], q[1]});
    for (size_t i = 0; i < mask.as<bool>().size(); ++i) {
      mask.as<bool>()[i] = i % 5 != 1;
    }
    out.push_back(mask);
  }
  if (s.attrs.dropout > 0) {
    const std::array<int64_t, 2> numbers = {7, 3};
    out.push_back(Tensor::from<int64_t>({2}, numbers));
  }
  return out;
}

// Gradients, and what bias_grad makes of dq, dk and dv in packed ones, where these bring sums.
std::vector<ValueId> with_walks(Graph& g, NodeId n, bool sums) {
  const auto outputs = g.outputs(n);
  std::vector<ValueId> out(outputs.begin(), outputs.end());
  const Shape packed = g.shape(out[0]);
  for (int64_t i = 0; sums && i < 3; ++i) {
    const ValueId one = slice(g, out[0], 2, i, i + 1);
    out.push_back(
        g.emit(bias_grad_op, {reshape(g, one, {packed[0] * packed[1], packed[3] * packed[4]})}));
  }
  return out;
}

// dq, dk and dv, or one tensor of them, from q, k, v and dout through the forward pass.
std::vector<Tensor> gradients(const Size& s, DType dtype, bool packed, bool sums = false) {
  return run_graph(operands(s, dtype), [&](Graph& g, const std::vector<ValueId>& in) {
    const ValueId mask = s.masked ? in[4] : kNoValue;
    const ValueId rng = s.attrs.dropout > 0 ? in.back() : kNoValue;
    const std::array<ValueId, 5> forward = {in[0], in[1], in[2], mask, rng};
    const NodeId n = g.emit_node(attention_op, forward, s.attrs);
    const std::array<ValueId, 8> backward = {in[0],          in[1], in[2], g.output(n, 0),
                                             g.output(n, 1), in[3], mask,  rng};
    const NodeId m =
        g.emit_node(attention_grad_op, backward,
                    AttentionGradAttrs{.forward = s.attrs, .packed = packed, .bias_sums = sums});
    return with_walks(g, m, sums);
  });
}

bool is_same(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.data(), b.data(), static_cast<size_t>(a.bytes())) == 0;
}

void infer(const Shape& q, const Shape& k, const AttentionGradAttrs& attrs) {
  const SlotTable slots;
  Graph g(slots);
  const ValueId query = g.input("q", DType::f32, q);
  const ValueId key = g.input("k", DType::f32, k);
  const ValueId lse = g.input("lse", DType::f32, {q[0], q[2], q[1]});
  g.emit(attention_grad_op, {query, key, key, query, lse, query}, attrs);
}

}  // namespace

TEST_CASE("attention_grad: packed gradients and their sums are the three tensors', bit for bit") {
  const Size sizes[] = {
      {{1, 1, 1, 1}},
      {{2, 7, 4, 3}, {0.5, true, 0.5, 9}, true},
      {{2, 65, 2, 40}, {.scale = 0.16, .causal = true}},
      {{1, 270, 2, 8}, {.scale = 0.3}, true},  // several tiles of keys add to dq
      {{1, 520, 1, 12}, {0.3, true, 0.1, 3}},
      {{2, 40, 2, 64}, {.scale = 0.125, .dropout = 0.1, .dropout_key = 2}, true},
      {{1, 33, 2, 80}, {.scale = 0.11}},
      {{2, 0, 2, 8}},
      {{0, 4, 2, 8}},
  };
  for (const Size& s : sizes) {
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
      for (const int threads : {1, 2}) {
        CAPTURE(fmt::format("{} {} {} threads", s.q, dtype_name(dtype), threads));
        const ThreadCount count(threads);
        const std::vector<Tensor> apart = gradients(s, dtype, false);
        const std::vector<Tensor> packed = gradients(s, dtype, true);
        const std::vector<Tensor> summed = gradients(s, dtype, true, true);
        REQUIRE(apart.size() == 3);
        REQUIRE(packed.size() == 1);
        REQUIRE(packed[0].shape() == Shape{s.q[0], s.q[1], 3, s.q[2], s.q[3]});
        REQUIRE(packed[0].dtype() == dtype);
        const auto row = static_cast<size_t>(s.q[2] * s.q[3] * dtype_bits(dtype) / 8);
        const auto* from = static_cast<const std::byte*>(packed[0].data());
        int64_t other_rows = 0;
        for (int64_t token = 0; token < s.q[0] * s.q[1]; ++token) {
          for (const Tensor& gradient : apart) {
            const auto* own = static_cast<const std::byte*>(gradient.data());
            other_rows += std::memcmp(from, own + static_cast<size_t>(token) * row, row) != 0;
            from += row;
          }
        }
        CHECK(other_rows == 0);
        REQUIRE(summed.size() == 7);
        CHECK(is_same(summed[0], packed[0]));
        for (size_t i = 1; i <= 3; ++i) {
          CAPTURE(i);
          CHECK(is_same(summed[i], summed[3 + i]));
        }
      }
    }
  }
}

TEST_CASE("attention_grad: what cannot be packed is refused") {
  const Shape q{2, 6, 4, 8};
  const AttentionGradAttrs packed{.forward = {}, .packed = true};
  infer(q, q, packed);
  CHECK_THROWS_WITH_AS(infer(q, q, {.forward = {}, .dk = false, .packed = true}),
                       doctest::Contains("dq true, dk false, dv true"), ShapeError);
  CHECK_THROWS_WITH_AS(infer(q, {2, 6, 2, 8}, packed), doctest::Contains("differ"), ShapeError);
  CHECK_THROWS_WITH_AS(infer(q, {2, 5, 4, 8}, packed), doctest::Contains("differ"), ShapeError);
  CHECK_THROWS_WITH_AS(infer(q, q, {.forward = {}, .bias_sums = true}),
                       doctest::Contains("bias sums are of packed gradients"), ShapeError);
}

TEST_CASE("attention_grad: the sums of tiles are planned beside the rest, walks in its place") {
  const auto bytes = [](DType dtype, const Shape& q, bool sums) {
    const SlotTable slots;
    Graph g(slots);
    const ValueId x = g.input("x", dtype, q);
    const ValueId lse = g.input("lse", DType::f32, {q[0], q[2], q[1]});
    const std::array<ValueId, 6> in = {x, x, x, x, lse, x};
    const NodeId n =
        g.emit_node(attention_grad_op, in,
                    AttentionGradAttrs{.forward = {}, .packed = true, .bias_sums = sums});
    return attention_grad_op.workspace(g, n, DeviceKind::cuda);
  };
  const auto more = [&](DType dtype, const Shape& q) {
    return bytes(dtype, q, true) - bytes(dtype, q, false);
  };
  CHECK(more(DType::bf16, {5, 130, 2, 64}) == 5 * 3 * 3 * 2 * 64 * 4);
  CHECK(more(DType::f16, {5, 128, 2, 40}) == 5 * 2 * 3 * 2 * 40 * 4);
  CHECK(more(DType::f32, {5, 130, 2, 64}) == 0);
  CHECK(bytes(DType::f32, {640, 1, 1, 256}, true) >= 10 * 3 * 256 * 4);
}
