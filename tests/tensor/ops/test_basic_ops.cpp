// What the registry's comparisons cannot see: fixed values, ties, NaN, threads and refusals.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/core/philox.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/loss.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/run_op.h"
#include "tensor/ops/softmax.h"

namespace lithe {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Tensor random_floats(const Shape& shape, uint64_t seed) {
  Tensor out(DType::f32, shape);
  uint64_t i = 0;
  for (float& x : out.as<float>()) {
    x = uniform01(philox(seed, 1, i++).word[0]) - 0.5f;
  }
  return out;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

std::vector<float> floats(const Tensor& t) { return {t.as<float>().begin(), t.as<float>().end()}; }

// The result on one, two and three threads; all must have the same bits.
template <typename Run>
void check_threads(Run&& run) {
  const auto on = [&](int threads) {
    const ThreadCount count(threads);
    return run();
  };
  const std::vector<Tensor> one = on(1);
  for (const int threads : {2, 3}) {
    const std::vector<Tensor> other = on(threads);
    for (size_t i = 0; i < one.size(); ++i) {
      CAPTURE(threads);
      CHECK(same_bits(one[i], other[i]));
    }
  }
}

TEST_CASE("sums have the same bits on any number of threads") {
  for (const Shape& shape : {Shape{70001}, Shape{3, 40001}, Shape{1000, 77}, Shape{4, 300, 50}}) {
    const Tensor x = random_floats(shape, 3);
    for (uint8_t axes = 1; axes < (1 << shape.rank()); ++axes) {
      CAPTURE(shape);
      CAPTURE(static_cast<int>(axes));
      check_threads([&] {
        return run_op(reduce_sum_op, {x}, ReduceAttrs{Reduction::sum, axes, false});
      });
    }
  }
  const Tensor logits = random_floats({300, 101}, 4);
  const Tensor labels = Tensor::from({300}, std::vector<int64_t>(300, 7));
  check_threads([&] { return run_op(cross_entropy_op, {logits, labels}, CrossEntropyAttrs{}); });
  check_threads([&] { return run_op(mse_op, {logits, random_floats({300, 101}, 5)}); });
}

TEST_CASE("the embedding gradient adds a row's occurrences in order, on any number of threads") {
  std::vector<int64_t> ids;
  for (uint64_t i = 0; i < 500; ++i) {
    ids.push_back(philox(9, 0, i).word[0] % 7);
  }
  const Tensor dy = random_floats({500, 300}, 6);
  const auto run = [&] {
    return run_op(embedding_grad_op, {dy, Tensor::from({500}, ids)}, EmbeddingAttrs{8});
  };
  check_threads(run);
  const Tensor dtable = run()[0];
  for (int64_t h = 0; h < 300; ++h) {
    float sum = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == 3) {
        sum += dy.as<float>()[i * 300 + static_cast<size_t>(h)];
      }
    }
    CHECK(dtable.as<float>()[static_cast<size_t>(3 * 300 + h)] == sum);
    CHECK(dtable.as<float>()[static_cast<size_t>(7 * 300 + h)] == 0);  // never looked up
  }
}

TEST_CASE("maximum: NaN is the largest, and the gradient goes to the first of equals") {
  const ReduceAttrs rows{Reduction::max, 0b10, false};
  const Tensor x = Tensor::from({3, 4}, std::vector<float>{1, 3, 3, 2,                      //
                                                           -kInfinity, -5, -5, -kInfinity,  //
                                                           1, kNaN, 9, kNaN});
  const Tensor y = run_op(reduce_max_op, {x}, rows)[0];
  CHECK(y.as<float>()[0] == 3);
  CHECK(y.as<float>()[1] == -5);
  CHECK(std::isnan(y.as<float>()[2]));
  // The same along the other dimension's kernel.
  const Tensor t = run_op(transpose_op, {x}, TransposeAttrs{{1, 0}, 2})[0];
  const Tensor columns = run_op(reduce_max_op, {t}, ReduceAttrs{Reduction::max, 0b01, false})[0];
  CHECK(floats(columns)[0] == 3);
  CHECK(floats(columns)[1] == -5);
  CHECK(std::isnan(floats(columns)[2]));
  const Tensor dy = Tensor::from({3}, std::vector<float>{10, 20, 30});
  CHECK(floats(run_op(reduce_max_grad_op, {dy, x}, rows)[0]) ==
        std::vector<float>{0, 10, 0, 0, 0, 20, 0, 0, 0, 30, 0, 0});
}

TEST_CASE("empty reductions: sum 0, mean NaN, maximum refused") {
  const Tensor x(DType::f32, {2, 0});
  CHECK(floats(run_op(reduce_sum_op, {x}, ReduceAttrs{Reduction::sum, 0b10, false})[0]) ==
        std::vector<float>{0, 0});
  const Tensor mean = run_op(reduce_mean_op, {x}, ReduceAttrs{Reduction::mean, 0b10, false})[0];
  CHECK(std::isnan(mean.as<float>()[0]));
  CHECK_THROWS_AS(run_op(reduce_max_op, {x}, ReduceAttrs{Reduction::max, 0b10, false}), ShapeError);
}

TEST_CASE("softmax: rows without a visible key are zero, hidden infinities are not seen") {
  const Tensor x = Tensor::from({2, 1, 3}, std::vector<float>{1, 2, 3, 1000, kInfinity, 1000});
  Tensor mask(DType::boolean, {2, 3});
  mask.as<bool>()[3] = mask.as<bool>()[5] = true;
  CHECK(floats(run_op(softmax_op, {x, mask}, SoftmaxAttrs{})[0]) ==
        std::vector<float>{0, 0, 0, 0.5f, 0, 0.5f});
  // NaN that is visible must not be hidden by the masking.
  const Tensor bad = Tensor::from({2, 1, 3}, std::vector<float>{1, 2, 3, kNaN, 0, kNaN});
  CHECK(std::isnan(run_op(softmax_op, {bad, mask}, SoftmaxAttrs{})[0].as<float>()[3]));
}

TEST_CASE("softmax of rows longer than a piece sums to 1 and agrees with fp64") {
  const Tensor x = random_floats({3, 2600}, 12);
  for (const bool causal : {false, true}) {
    const SoftmaxAttrs attrs{8.0, causal};
    const Tensor y = run_op(softmax_op, {x}, attrs)[0];
    const Tensor exact = run_op(softmax_op, {x.to(DType::f64)}, attrs)[0];
    for (size_t r = 0; r < 3; ++r) {
      double sum = 0;
      for (size_t i = r * 2600; i < (r + 1) * 2600; ++i) {
        sum += y.as<float>()[i];
        CHECK(y.as<float>()[i] == doctest::Approx(exact.as<double>()[i]).epsilon(1e-5));
      }
      CHECK(sum == doctest::Approx(1).epsilon(1e-5));
    }
  }
}

TEST_CASE("count_correct: the first of the largest wins, ignored rows and NaN do not count") {
  const Tensor logits = Tensor::from({6, 3}, std::vector<float>{1, 5, 5,     //
                                                                1, 5, 5,     //
                                                                0, 0, 0,     //
                                                                9, 1, 1,     //
                                                                kNaN, 1, 2,  //
                                                                -kInfinity, -kInfinity, 4});
  const Tensor labels = Tensor::from({6}, std::vector<int64_t>{1, 2, 0, -100, 2, 2});
  CHECK(run_op(count_correct_op, {logits, labels}, CountCorrectAttrs{})[0].as<int64_t>()[0] == 3);
}

TEST_CASE("cross entropy: mean over the rows that count, 0 when none does") {
  const float a = std::log(3.0f);
  const Tensor logits = Tensor::from({3, 2}, std::vector<float>{a, 0, 0, a, 7, 7});
  const auto loss = [&](std::vector<int64_t> labels, CrossEntropyAttrs attrs = {}) {
    const std::vector<Tensor> out =
        run_op(cross_entropy_op, {logits, Tensor::from({3}, labels)}, attrs);
    return static_cast<double>(out[0].as<float>()[0]);
  };
  const double right = std::log(4.0 / 3.0);
  const double wrong = std::log(4.0);
  CHECK(loss({0, 1, -100}) == doctest::Approx(right));
  CHECK(loss({0, 0, 1}) == doctest::Approx((right + wrong + std::log(2.0)) / 3));
  CHECK(loss({1, 1, 5}, {.ignore_index = 5}) == doctest::Approx((right + wrong) / 2));
  CHECK(loss({0, -100, -100}, {.label_smoothing = 0.2}) ==
        doctest::Approx(0.9 * right + 0.1 * wrong));
  CHECK(loss({-100, -100, -100}) == 0);
  CHECK_THROWS_AS(loss({0, 1, 2}), ShapeError);
  CHECK_THROWS_AS(loss({0, 1, -1}), ShapeError);
}

TEST_CASE("the optimistic paths of the builders emit nothing or a view") {
  const SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {4, 1, 6});
  CHECK(reshape(g, x, {4, 1, 6}) == x);
  CHECK(slice(g, x, -1, 0, 6) == x);
  CHECK(scale(g, x, 1) == x);
  CHECK(cast(g, x, DType::f32) == x);
  CHECK(sum_to(g, x, {4, 1, 6}) == x);
  CHECK(broadcast_to(g, x, {4, 1, 6}) == x);
  CHECK(concat(g, std::span(&x, 1), 0) == x);
  CHECK(g.node_count() == 0);
  // Only a dimension of size 1 moves, so no data does.
  const ValueId moved = transpose(g, x, {1, 0, 2});
  CHECK(g.shape(moved) == Shape{1, 4, 6});
  CHECK(g.node(g.value(moved).producer).op == &reshape_op);
  CHECK(g.node(g.value(transpose(g, x, {2, 1, 0})).producer).op == &transpose_op);
  const ValueId summed = sum_to(g, g.input("y", DType::f32, {5, 4, 3, 6}), {4, 1, 6});
  CHECK(g.shape(summed) == Shape{4, 1, 6});
}

TEST_CASE("transpose moves every element of every element size to its place") {
  const Shape shape{3, 65, 2, 70};
  const std::array<std::array<int8_t, 6>, 3> orders = {{{0, 3, 2, 1}, {3, 2, 1, 0}, {2, 0, 3, 1}}};
  for (const DType dtype : {DType::u8, DType::bf16, DType::f32, DType::i64}) {
    Tensor x(dtype, shape);
    const int64_t size = dtype_bits(dtype) / 8;
    for (int64_t i = 0; i < x.bytes(); ++i) {
      x.data()[i] = static_cast<std::byte>(philox(1, 2, static_cast<uint64_t>(i)).word[0]);
    }
    for (const auto& order : orders) {
      const Tensor y = run_op(transpose_op, {x}, TransposeAttrs{order, 4})[0];
      int64_t wrong = 0;
      for (int64_t i = 0; i < x.numel(); ++i) {
        int64_t rest = i;
        std::array<int64_t, 4> index{};  // in x
        for (int d = 3; d >= 0; --d) {
          index[static_cast<size_t>(d)] = rest % shape[d];
          rest /= shape[d];
        }
        int64_t to = 0;
        for (int d = 0; d < 4; ++d) {
          to = to * y.shape()[d] + index[static_cast<size_t>(order[static_cast<size_t>(d)])];
        }
        wrong +=
            std::memcmp(y.data() + to * size, x.data() + i * size, static_cast<size_t>(size)) != 0;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("ops refuse what does not fit") {
  const Tensor f(DType::f32, {2, 3});
  const Tensor ids(DType::i64, {2});
  CHECK_THROWS_AS(run_op(add_op, {f, Tensor(DType::f32, {4})}), ShapeError);
  CHECK_THROWS_AS(run_op(add_op, {f, Tensor(DType::f64, {2, 3})}), ShapeError);
  CHECK_THROWS_AS(run_op(add_op, {ids, ids}), ShapeError);
  CHECK_THROWS_AS(run_op(cast_op, {f}, CastAttrs{DType::i8}), ShapeError);
  CHECK_THROWS_AS(run_op(reshape_op, {f}, ReshapeAttrs{{7}}), ShapeError);
  CHECK_THROWS_AS(run_op(transpose_op, {f}, TransposeAttrs{{0, 0}, 2}), ShapeError);
  CHECK_THROWS_AS(run_op(transpose_op, {f}, TransposeAttrs{{0, 1, 2}, 3}), ShapeError);
  CHECK_THROWS_AS(run_op(slice_op, {f}, SliceAttrs{1, 2, 4, 3}), ShapeError);
  CHECK_THROWS_AS(run_op(slice_op, {f}, SliceAttrs{2, 0, 1, 3}), ShapeError);
  CHECK_THROWS_AS(run_op(concat_op, {f, Tensor(DType::f32, {2, 4})}, ConcatAttrs{0}), ShapeError);
  CHECK_THROWS_AS(run_op(softmax_op, {f, Tensor(DType::boolean, {2, 2})}), ShapeError);
  CHECK_THROWS_AS(run_op(softmax_op, {f, ids}), ShapeError);
  CHECK_THROWS_AS(run_op(cross_entropy_op, {f, Tensor(DType::i32, {2})}), ShapeError);
  CHECK_THROWS_AS(run_op(cross_entropy_op, {f, ids}, CrossEntropyAttrs{-100, 1.5}), ShapeError);
  CHECK_THROWS_AS(run_op(mse_op, {f, Tensor(DType::f32, {3, 2})}), ShapeError);
  const Tensor id = Tensor::from({1}, std::vector<int64_t>{2});
  CHECK_THROWS_WITH_AS(run_op(embedding_op, {f, id}),
                       doctest::Contains("id 2 at position 0 is outside the table's [0, 2)"),
                       ShapeError);
  const SlotTable slots;
  Graph g(slots);
  const ValueId x = g.input("x", DType::f32, {2, 3});
  CHECK_THROWS_AS(reduce_sum(g, x, {2}), ShapeError);
  CHECK_THROWS_AS(sum_to(g, x, {4}), ShapeError);
  CHECK_THROWS_AS(broadcast_to(g, x, {3}), ShapeError);
  CHECK_THROWS_AS(transpose(g, x, {0, 5}), ShapeError);
  CHECK_THROWS_AS(concat(g, {}, 0), ShapeError);
}

}  // namespace
}  // namespace lithe
