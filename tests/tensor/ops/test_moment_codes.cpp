// Moments in 8 bits: the codes themselves, and AdamW with them beside AdamW in fp32.
#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>
#include <limits>
#include <memory>
#include <random>

#include "tensor/graph/executor.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/moment_codes.h"
#include "tensor/ops/op_table.h"
#include "tensor/ops/update.h"

namespace lithe {
namespace {

// One weight of n elements with its state, updated by a gradient or without one.
class Weight {
 public:
  Weight(int64_t n, bool coded, const AdamWAttrs& attrs) : n_(n) {
    const auto slot = [&](const char* name, DType dtype, const Shape& shape) {
      return slots_.add({.name = name, .dtype = dtype, .shape = shape, .kind = SlotKind::state});
    };
    w = slot("w", DType::f32, {n});
    m = slot("m", coded ? DType::u8 : DType::f32, coded ? moment_codes_shape(n) : Shape{n});
    v = slot("v", DType::f32, coded ? moment_scales_shape(n) : Shape{n});
    step = slot("step", DType::i64, {1});
    for (const bool idle : {false, true}) {
      Emitted& e = idle ? idle_ : active_;
      e.graph = std::make_unique<Graph>(slots_);
      Graph& g = *e.graph;
      e.gradient = idle ? kNoValue : g.input("gradient", DType::f32, {n});
      e.lr = g.input("lr", DType::f32, {1});
      AdamWAttrs with = attrs;
      with.no_gradient = idle;
      adamw(g,
            {.weight = g.leaf(w),
             .gradient = e.gradient,
             .m = g.leaf(m),
             .v = g.leaf(v),
             .step = g.leaf(step),
             .lr = e.lr},
            with);
      verify(g, "building");
      e.plan = make_plan(g, DeviceKind::cpu);
    }
    executor_ = std::make_unique<Executor>(cpu_memory(), cpu_kernel, slots_);
    executor_->reserve_arena(std::max(active_.plan.arena_bytes, idle_.plan.arena_bytes));
    for (Emitted* e : {&active_, &idle_}) {
      e->program = executor_->bind(*e->graph, e->plan);
    }
    for (SlotId s = 0; s < slots_.size(); ++s) {
      executor_->write_slot(s, Tensor(slots_[s].dtype, slots_[s].shape));
    }
  }

  void update(const std::vector<float>& gradient, float lr) {
    executor_->write(active_.program, active_.gradient, Tensor::from(Shape{n_}, gradient));
    executor_->write(active_.program, active_.lr, Tensor::from(Shape{1}, std::vector<float>{lr}));
    executor_->run(active_.program);
  }
  void idle(float lr) {
    executor_->write(idle_.program, idle_.lr, Tensor::from(Shape{1}, std::vector<float>{lr}));
    executor_->run(idle_.program);
  }
  void set_weight(const std::vector<float>& values) {
    executor_->write_slot(w, Tensor::from(Shape{n_}, values));
  }
  Tensor read(SlotId slot) const { return executor_->read_slot(slot); }
  std::vector<float> weight() const {
    const Tensor t = read(w);
    return {t.as<float>().begin(), t.as<float>().end()};
  }
  int64_t steps() const { return read(step).as<int64_t>()[0]; }
  // Element i's m and sqrt(v), of either state.
  std::pair<double, double> moments(int64_t i) const {
    const Tensor first = read(m);
    const Tensor second = read(v);
    const auto at = static_cast<size_t>(i);
    if (first.dtype() != DType::u8) {
      return {first.as<float>()[at], std::sqrt(second.as<float>()[at])};
    }
    const size_t block = at / kMomentBlock;
    const auto codes = first.as<uint8_t>().subspan(block * 2 * kMomentBlock, 2 * kMomentBlock);
    const auto scales = second.as<float>().subspan(2 * block, 2);
    return {momentum_of_code(codes[at % kMomentBlock]) * scales[0],
            root_of_code(codes[kMomentBlock + at % kMomentBlock]) * scales[1]};
  }

  SlotId w, m, v, step;

 private:
  struct Emitted {
    std::unique_ptr<Graph> graph;
    Plan plan;
    Program program;
    ValueId gradient = kNoValue, lr = kNoValue;
  };
  int64_t n_;
  SlotTable slots_;
  Emitted active_, idle_;
  std::unique_ptr<Executor> executor_;
};

std::vector<float> normal(std::mt19937& random, int64_t n, double scale = 1) {
  std::normal_distribution<double> draw(0, scale);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) {
    x = static_cast<float>(draw(random));
  }
  return out;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::equal(a.data(), a.data() + a.bytes(), b.data());
}

}  // namespace

TEST_CASE("moment codes: each code is its own value's, whichever way it is rounded") {
  CHECK(root_of_code(255) == 1);
  CHECK(momentum_of_code(127) == 1);
  CHECK(momentum_of_code(255) == -1);
  for (const uint32_t random : {0u, 0x80008000u, 0xffffffffu}) {
    for (int code = 0; code < 256; ++code) {
      const auto c = static_cast<uint8_t>(code);
      CHECK(code_of_root(root_of_code(c), random) == c);
      CHECK(code_of_momentum(momentum_of_code(c), random) == c);
      if (code > 1) {
        const float ratio = root_of_code(c) / root_of_code(static_cast<uint8_t>(code - 1));
        CHECK(ratio > 1.03F);
        CHECK(ratio <= 1.0625F);
      }
    }
  }
  CHECK(root_of_code(1) < 0x1p-15F);
  CHECK(momentum_of_code(1) < 0x1p-15F);
}

TEST_CASE("moment codes: between two codes, by chance and right on average") {
  for (const float x : {0.9F, 0.51F, 0.3333F, 0.01F, 3e-4F}) {
    double root = 0;
    double momentum = 0;
    constexpr int kDraws = 20000;
    for (int i = 0; i < kDraws; ++i) {
      const uint32_t random = scramble(static_cast<uint32_t>(i));
      const double r = root_of_code(code_of_root(x, random));
      const double m = momentum_of_code(code_of_momentum(-x, random));
      CHECK(std::abs(r - x) < 0.0625 * x);
      CHECK(std::abs(m + x) < 0.125 * x);
      root += r / kDraws;
      momentum += m / kDraws;
    }
    // A draw is off by 1/16 (1/8) at most, their mean by some 1/140 of that.
    CHECK(root == doctest::Approx(x).epsilon(0.002));
    CHECK(momentum == doctest::Approx(-x).epsilon(0.004));
  }
}

TEST_CASE("moment codes: what is above 0 stays above 0, and no number is without a code") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const uint32_t random : {0u, 0xffffffffu}) {
    CHECK(code_of_root(1e-30F, random) == 1);
    CHECK(code_of_root(0, random) == 0);
    CHECK(code_of_root(2, random) == 255);
    CHECK(code_of_root(kInfinity, random) == 255);
    CHECK(code_of_root(kNan, random) == 0);
    CHECK(momentum_of_code(code_of_momentum(1e-30F, random)) == 0);
    CHECK(code_of_momentum(kInfinity, random) == 127);
    CHECK(code_of_momentum(-kInfinity, random) == 255);
    CHECK((code_of_momentum(kNan, random) & 0x7f) == 127);
  }
  CHECK(over_scale(0) == 0);
}

TEST_CASE("adamw in 8 bits: the first step is that of fp32, and its moments are coded") {
  std::mt19937 random(3);
  const int64_t n = 1000;  // the last block is not full
  const AdamWAttrs attrs{.weight_decay = 0.1};
  Weight wide(n, false, attrs);
  Weight coded(n, true, attrs);
  const auto start = normal(random, n);
  const auto gradient = normal(random, n, 1e-3);
  for (Weight* weight : {&wide, &coded}) {
    weight->set_weight(start);
    weight->update(gradient, 0.01F);
    CHECK(weight->steps() == 1);
  }
  const auto a = wide.weight();
  const auto b = coded.weight();
  double largest_m = 0;
  for (int64_t i = 0; i < n; ++i) {
    CHECK(b[static_cast<size_t>(i)] == doctest::Approx(a[static_cast<size_t>(i)]).epsilon(1e-6));
    const auto [m, root] = wide.moments(i);
    const auto [coded_m, coded_root] = coded.moments(i);
    CHECK(std::abs(coded_root - root) <= 0.0625 * root);
    CHECK(std::abs(coded_m - m) <= 0.125 * std::abs(m) + 1e-8);
    largest_m = i < kMomentBlock ? std::max(largest_m, std::abs(m)) : largest_m;
  }
  const Tensor scales = coded.read(coded.v);
  CHECK(scales.shape() == Shape{4, 2});
  CHECK(scales.as<float>()[0] == doctest::Approx(largest_m).epsilon(1e-6));
  // Codes behind the last element are nobody's.
  const auto codes = coded.read(coded.m);
  CHECK(codes.as<uint8_t>().back() == 0);
}

TEST_CASE("adamw in 8 bits: moments follow gradients that grow and fade, as those in fp32") {
  // Gradients of one block differ by orders of magnitude; in the middle half of them fade. Rounded
  // to the nearest code, the roots would stay at what they were: five times too large.
  std::mt19937 random(5);
  const int64_t n = 512;
  Weight wide(n, false, {});
  Weight coded(n, true, {});
  const auto size = normal(random, n, 1.5);
  const auto run = [&](int steps, float fade) {
    for (int step = 0; step < steps; ++step) {
      auto gradient = normal(random, n);
      for (size_t i = 0; i < gradient.size(); ++i) {
        gradient[i] *= std::exp(size[i]) * (i % 2 == 1 ? fade : 1);
      }
      wide.update(gradient, 1e-4F);
      coded.update(gradient, 1e-4F);
    }
  };
  const auto mean_ratio = [&](int64_t from) {
    double sum = 0;
    for (int64_t i = from; i < n; i += 2) {
      sum += std::log(coded.moments(i).second / wide.moments(i).second);
    }
    return std::exp(sum / static_cast<double>(n / 2));
  };
  run(800, 1);
  CHECK(mean_ratio(0) == doctest::Approx(1).epsilon(0.05));
  CHECK(mean_ratio(1) == doctest::Approx(1).epsilon(0.05));
  run(4000, 0.2F);
  CHECK(mean_ratio(0) == doctest::Approx(1).epsilon(0.05));
  CHECK(mean_ratio(1) == doctest::Approx(1).epsilon(0.05));
  // The last step's direction, over all elements.
  double difference = 0;
  double all = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto [m, root] = wide.moments(i);
    const auto [coded_m, coded_root] = coded.moments(i);
    difference += std::pow(m / root - coded_m / coded_root, 2);
    all += std::pow(m / root, 2);
  }
  CAPTURE(std::sqrt(difference / all));
  CHECK(difference < 0.0625 * all);
}

TEST_CASE("adamw in 8 bits: the same bits on any number of threads, other ones in every step") {
  const int64_t n = 100'003;
  std::vector<std::unique_ptr<Weight>> all;
  for (const int threads : {1, 3}) {
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    std::mt19937 random(7);
    all.push_back(std::make_unique<Weight>(n, true, AdamWAttrs{.weight_decay = 0.1}));
    for (int step = 0; step < 3; ++step) {
      all.back()->update(normal(random, n), 0.01F);
    }
    omp_set_num_threads(before);
  }
  for (const SlotId slot : {all[0]->w, all[0]->m, all[0]->v}) {
    CHECK(same_bits(all[0]->read(slot), all[1]->read(slot)));
  }
  CHECK(rounding_key(0, 1) != rounding_key(0, 2));
  CHECK(rounding_key(0, 1) != rounding_key(1, 1));
}

TEST_CASE("without a gradient, what was never updated stays; else momentum moves it on") {
  for (const bool coded : {false, true}) {
    CAPTURE(coded);
    Weight weight(300, coded, {.weight_decay = 0.1});
    const std::vector<float> start(300, 2.0F);
    weight.set_weight(start);
    weight.idle(0.5F);
    CHECK(weight.weight() == start);
    CHECK(weight.steps() == 0);
    weight.update(std::vector<float>(300, 1.0F), 0.5F);
    const auto once = weight.weight();
    weight.idle(0.5F);
    CHECK(weight.steps() == 2);
    CHECK(weight.weight()[0] < once[0]);
  }
}

TEST_CASE("legacy momentum: the drift of one real step and sixty frozen ones") {
  // Section 5.4 of the specification measured 0.67 lr in the first frozen step and 5.0 lr in all,
  // mean absolute. With one gradient g before, after k zeros m = 0.1 0.9^k g and v = 0.001 0.999^k
  // g^2, so frozen step k (the update number k + 1) moves by
  //   lr sqrt(1 - 0.999^(k+1)) / (1 - 0.9^(k+1)) 0.1 0.9^k |g| / (sqrt(0.001 0.999^k) |g| + eps).
  const double eps = 1e-6;
  const auto moved = [&](double g, int k) {
    const double size = std::abs(g);
    return std::sqrt(1 - std::pow(0.999, k + 1)) / (1 - std::pow(0.9, k + 1)) * 0.1 *
           std::pow(0.9, k) * size / (std::sqrt(0.001 * std::pow(0.999, k)) * size + eps);
  };
  const int64_t n = 2000;
  const float lr = 1e-3F;
  for (const bool coded : {false, true}) {
    CAPTURE(coded);
    std::mt19937 random(11);
    const auto gradient = normal(random, n);
    Weight weight(n, coded, {.eps = eps, .epsilon = AdamEpsilon::uncorrected});
    weight.update(gradient, lr);
    const auto begin = weight.weight();
    double first = 0;
    double all = 0;
    double wanted_first = 0;
    double wanted_all = 0;
    for (int k = 1; k <= 60; ++k) {
      weight.idle(lr);
      if (k == 1) {
        const auto now = weight.weight();
        for (size_t i = 0; i < now.size(); ++i) {
          first += std::abs(now[i] - begin[i]) / lr / static_cast<double>(n);
        }
      }
    }
    const auto end = weight.weight();
    for (size_t i = 0; i < end.size(); ++i) {
      double element = 0;
      for (int k = 1; k <= 60; ++k) {
        element += moved(gradient[i], k);
      }
      wanted_first += moved(gradient[i], 1) / static_cast<double>(n);
      wanted_all += element / static_cast<double>(n);
      const double got = (end[i] - begin[i]) / lr;
      all += std::abs(got) / static_cast<double>(n);
      if (!coded) {
        // Against the gradient, each element by its own amount.
        CHECK(got == doctest::Approx(gradient[i] > 0 ? -element : element).epsilon(2e-4));
      }
    }
    CHECK(wanted_first == doctest::Approx(0.67).epsilon(0.005));
    CHECK(wanted_all == doctest::Approx(5.0).epsilon(0.01));
    CHECK(first == doctest::Approx(wanted_first).epsilon(coded ? 0.01 : 2e-4));
    CHECK(all == doctest::Approx(wanted_all).epsilon(coded ? 0.02 : 2e-4));
    CHECK(weight.steps() == 61);
  }
}

TEST_CASE("adamw refuses state of the wrong shape and gradients where there are none") {
  SlotTable slots;
  const auto slot = [&](const char* name, DType dtype, const Shape& shape) {
    return slots.add({.name = name, .dtype = dtype, .shape = shape, .kind = SlotKind::state});
  };
  const SlotId w = slot("w", DType::f32, {300});
  const SlotId codes = slot("codes", DType::u8, {2, 2, 256});
  const SlotId few = slot("few", DType::u8, {1, 2, 256});
  const SlotId scales = slot("scales", DType::f32, {2, 2});
  const SlotId wide = slot("wide", DType::f64, {2, 2});
  const SlotId step = slot("step", DType::i64, {1});
  Graph g(slots);
  const ValueId gradient = g.input("gradient", DType::f32, {300});
  const ValueId lr = g.input("lr", DType::f32, {1});
  const auto emit = [&](SlotId m, SlotId v, ValueId with, bool none) {
    adamw(g,
          {.weight = g.leaf(w),
           .gradient = with,
           .m = g.leaf(m),
           .v = g.leaf(v),
           .step = g.leaf(step),
           .lr = lr},
          {.no_gradient = none});
  };
  CHECK_THROWS_AS(emit(few, scales, gradient, false), ShapeError);
  CHECK_THROWS_AS(emit(codes, codes, gradient, false), ShapeError);
  CHECK_THROWS_AS(emit(codes, wide, gradient, false), ShapeError);
  CHECK_THROWS_AS(emit(codes, scales, kNoValue, false), ShapeError);
  CHECK_THROWS_AS(emit(codes, scales, gradient, true), ShapeError);
  CHECK_NOTHROW(emit(codes, scales, gradient, false));
}

}  // namespace lithe
