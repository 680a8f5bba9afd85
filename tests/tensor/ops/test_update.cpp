#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <random>

#include "io/safetensors.h"
#include "tensor/graph/executor.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/update.h"

namespace lithe {
namespace {

DeviceKernel cpu(const OpDef& op) { return {op.cpu}; }

Tensor scalar(double value, DType dtype = DType::f32) {
  return Tensor::from(Shape{1}, std::vector<double>{value}).to(dtype);
}

std::vector<double> values(const Tensor& t) {
  const Tensor wide = t.to(DType::f64);
  const auto span = wide.as<double>();
  return {span.begin(), span.end()};
}

// One weight and its state as slots, one update a step.
class Optimizer {
 public:
  Optimizer(DType dtype, const Tensor& weight, DType gradient_dtype, DType lr_dtype = DType::f32)
      : gradient_dtype_(gradient_dtype), lr_dtype_(lr_dtype), initial_(weight.to(dtype)) {
    const DType state = dtype == DType::f64 ? DType::f64 : DType::f32;
    const Shape shape = weight.shape();
    weight_ = slots_.add({.name = "w", .dtype = dtype, .shape = shape, .trainable = true});
    first_ = slots_.add({.name = "m", .dtype = state, .shape = shape, .kind = SlotKind::state});
    second_ = slots_.add({.name = "v", .dtype = state, .shape = shape, .kind = SlotKind::state});
    step_ = slots_.add({.name = "s", .dtype = DType::i64, .shape = {1}, .kind = SlotKind::state});
  }

  void adamw(const AdamWAttrs& attrs, double grad_scale = 1) {
    build(grad_scale, [&](Graph& g, ValueId gradient, ValueId lr, ValueId scale) {
      lithe::adamw(g,
                   {.weight = g.leaf(weight_),
                    .gradient = gradient,
                    .m = g.leaf(first_),
                    .v = g.leaf(second_),
                    .step = g.leaf(step_),
                    .lr = lr,
                    .grad_scale = scale},
                   attrs);
    });
  }
  void sgd(const SgdAttrs& attrs, double grad_scale = 1) {
    build(grad_scale, [&](Graph& g, ValueId gradient, ValueId lr, ValueId scale) {
      lithe::sgd(g,
                 {.weight = g.leaf(weight_),
                  .gradient = gradient,
                  .velocity = g.leaf(first_),
                  .step = g.leaf(step_),
                  .lr = lr,
                  .grad_scale = scale},
                 attrs);
    });
  }

  void step(const Tensor& gradient, double lr) {
    executor_->write(program_, gradient_, gradient.to(gradient_dtype_));
    executor_->write(program_, lr_, scalar(lr, lr_dtype_));
    if (scale_ != kNoValue) {
      executor_->write(program_, scale_, scalar(scale_value_));
    }
    executor_->run(program_);
  }
  std::vector<double> weight() const { return values(executor_->read_slot(weight_)); }
  std::vector<double> m() const { return values(executor_->read_slot(first_)); }
  std::vector<double> v() const { return values(executor_->read_slot(second_)); }
  int64_t count() const { return executor_->read_slot(step_).as<int64_t>()[0]; }

 private:
  template <typename Emit>
  void build(double grad_scale, Emit&& emit) {
    graph_ = std::make_unique<Graph>(slots_);
    gradient_ = graph_->input("gradient", gradient_dtype_, initial_.shape());
    lr_ = graph_->input("lr", lr_dtype_, {1});
    scale_value_ = grad_scale;
    scale_ = grad_scale == 1 ? kNoValue : graph_->input("scale", DType::f32, {1});
    emit(*graph_, gradient_, lr_, scale_);
    CHECK(graph_->eliminate_dead() == 0);
    CHECK(graph_->node(graph_->last()).phase == Phase::update);
    verify(*graph_, "building");
    plan_ = make_plan(*graph_, DeviceKind::cpu);
    executor_ = std::make_unique<Executor>(cpu_memory(), cpu, slots_);
    program_ = executor_->bind(*graph_, plan_);
    executor_->write_slot(weight_, initial_);
    for (SlotId s : {first_, second_, step_}) {
      executor_->write_slot(s, Tensor(slots_[s].dtype, slots_[s].shape));
    }
  }

  DType gradient_dtype_, lr_dtype_;
  Tensor initial_;
  SlotTable slots_;
  SlotId weight_, first_, second_, step_;
  std::unique_ptr<Graph> graph_;
  Plan plan_;
  std::unique_ptr<Executor> executor_;
  Program program_;
  ValueId gradient_ = kNoValue, lr_ = kNoValue, scale_ = kNoValue;
  double scale_value_ = 1;
};

// A graph of inputs without slots, run once.
template <typename Emit>
std::vector<Tensor> run(const std::vector<Tensor>& inputs, Emit&& emit) {
  const SlotTable slots;
  Graph g(slots);
  std::vector<ValueId> in;
  for (size_t i = 0; i < inputs.size(); ++i) {
    in.push_back(g.input(fmt::format("in{}", i), inputs[i].dtype(), inputs[i].shape()));
  }
  const std::vector<ValueId> out = emit(g, in);
  for (size_t i = 0; i < out.size(); ++i) {
    g.mark_output(out[i], fmt::format("out{}", i));
  }
  const Plan plan = make_plan(g, DeviceKind::cpu);
  Executor executor(cpu_memory(), cpu, slots);
  const Program program = executor.bind(g, plan);
  for (size_t i = 0; i < in.size(); ++i) {
    executor.write(program, in[i], inputs[i]);
  }
  executor.run_poisoned(program);
  std::vector<Tensor> result;
  for (ValueId v : out) {
    result.push_back(executor.read(program, v));
  }
  return result;
}

Tensor random_tensor(const Shape& shape, unsigned seed, double scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Tensor out(DType::f32, shape);
  for (float& x : out.as<float>()) {
    x = static_cast<float>(scale) * normal(generator);
  }
  return out;
}

// Largest difference between `got` and the last row of `history`, each element's as a share of its
// largest magnitude so far: momentum cancels, its rounding errors do not.
double error(const std::vector<double>& got, const std::vector<double>& history) {
  REQUIRE(history.size() % got.size() == 0);
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    double size = 0;
    for (size_t j = i; j < history.size(); j += got.size()) {
      size = std::max(size, std::abs(history[j]));
    }
    const double difference = std::abs(got[i] - history[history.size() - got.size() + i]);
    worst = std::max(worst, difference == 0 ? 0 : difference / size);
  }
  return worst;
}

}  // namespace

TEST_CASE("adamw: the first step with eps beside the uncorrected root") {
  // lr g / (|g| + eps / sqrt(1 - beta2)): published values.
  const Tensor gradient = Tensor::from(Shape{3}, std::vector<double>{1e-5, 1e-4, 1e-3});
  for (DType dtype : {DType::f64, DType::f32}) {
    Optimizer optimizer(dtype, Tensor(DType::f64, {3}), dtype);
    optimizer.adamw({.eps = 1e-6, .epsilon = AdamEpsilon::uncorrected});
    optimizer.step(gradient, 0.5);
    const auto w = optimizer.weight();
    CHECK(std::abs(-w[0] / 0.5 - 0.2403) < 5e-5);
    CHECK(std::abs(-w[1] / 0.5 - 0.7597) < 5e-5);
    CHECK(std::abs(-w[2] / 0.5 - 0.9693) < 5e-5);
    CHECK(optimizer.count() == 1);
  }
}

TEST_CASE("adamw and sgd: five steps against golden values") {
  const std::filesystem::path path =
      std::filesystem::path(LITHE_SOURCE_DIR) / "tests/golden/optimizers.safetensors";
  const auto file = SafetensorsFile::open(path);
  const Tensor lr = file.read("lr");
  for (int n : {7, 33}) {
    const Tensor initial = file.read(fmt::format("n{}.param", n));
    const Tensor gradients = file.read(fmt::format("n{}.grads", n));
    for (const char* name : {"adamw", "adamw_uncorrected_eps", "sgd_momentum", "sgd_nesterov"}) {
      for (DType dtype : {DType::f64, DType::f32}) {
        CAPTURE(name);
        CAPTURE(n);
        CAPTURE(dtype_name(dtype));
        const std::string_view which = name;
        const bool adam = which.starts_with("adamw");
        const double tolerance = dtype == DType::f64 ? 1e-14 : 1e-6;
        Optimizer optimizer(dtype, initial, dtype, DType::f64);
        if (which == "adamw") {
          optimizer.adamw({.eps = 1e-8, .weight_decay = 0.1});
        } else if (adam) {
          optimizer.adamw({.eps = 1e-6, .weight_decay = 0.1, .epsilon = AdamEpsilon::uncorrected});
        } else {
          optimizer.sgd(
              {.momentum = 0.9, .weight_decay = 0.01, .nesterov = which == "sgd_nesterov"});
        }
        // All rows up to the one after `step`.
        const auto golden = [&](std::string_view field, size_t step) {
          auto all = values(file.read(fmt::format("{}.n{}.{}", name, n, field)));
          all.resize((step + 1) * static_cast<size_t>(n));
          return all;
        };
        for (size_t step = 0; step < 5; ++step) {
          CAPTURE(step);
          const auto row =
              gradients.as<double>().subspan(step * static_cast<size_t>(n), static_cast<size_t>(n));
          optimizer.step(Tensor::from(Shape{n}, row), lr.as<double>()[step]);
          CHECK(error(optimizer.weight(), golden("params", step)) < tolerance);
          CHECK(error(optimizer.m(), golden(adam ? "m" : "velocity", step)) < tolerance);
          if (adam) {
            CHECK(error(optimizer.v(), golden("v", step)) < tolerance);
          }
          CHECK(optimizer.count() == static_cast<int64_t>(step) + 1);
        }
      }
    }
  }
}

TEST_CASE("updates of 16-bit weights are the fp32 update, rounded once") {
  const Shape shape{5, 1001};  // large enough for several threads
  const Tensor gradient = random_tensor(shape, 2, 0.1);
  for (DType dtype : {DType::bf16, DType::f16}) {
    for (DType gradient_dtype : {dtype, DType::f32}) {
      const Tensor weight = random_tensor(shape, 1).to(dtype);
      const Tensor rounded = gradient.to(gradient_dtype).to(DType::f32);
      for (bool adam : {true, false}) {
        Optimizer narrow(dtype, weight, gradient_dtype);
        Optimizer wide(DType::f32, weight, DType::f32);
        for (Optimizer* o : {&narrow, &wide}) {
          if (adam) {
            o->adamw({.weight_decay = 0.1});
          } else {
            o->sgd({.momentum = 0.9, .weight_decay = 0.1});
          }
          o->step(rounded, 0.01);
        }
        const auto wanted = wide.weight();
        const Tensor once = Tensor::from(shape, wanted).to(DType::f32).to(dtype);
        CHECK(narrow.weight() == values(once));
        CHECK(narrow.m() == wide.m());
      }
    }
  }
}

TEST_CASE("a gradient scale multiplies the gradient") {
  const Tensor weight = random_tensor({37}, 1);
  const Tensor gradient = random_tensor({37}, 2);
  Tensor quarter = gradient.clone();
  for (float& x : quarter.as<float>()) {
    x *= 0.25f;
  }
  for (bool adam : {true, false}) {
    Optimizer scaled(DType::f32, weight, DType::f32);
    Optimizer plain(DType::f32, weight, DType::f32);
    if (adam) {
      scaled.adamw({}, 0.25);
      plain.adamw({});
    } else {
      scaled.sgd({}, 0.25);
      plain.sgd({});
    }
    scaled.step(gradient, 0.1);
    plain.step(quarter, 0.1);
    CHECK(scaled.weight() == plain.weight());
    CHECK(scaled.weight() != values(weight));
  }
}

TEST_CASE("sgd without momentum needs no state and leaves it alone") {
  Optimizer optimizer(DType::f64, Tensor::from(Shape{2}, std::vector<double>{1, -2}), DType::f64);
  optimizer.sgd({.weight_decay = 0.5});
  optimizer.step(Tensor::from(Shape{2}, std::vector<double>{4, 8}), 0.25);
  CHECK(optimizer.weight() == std::vector<double>{1 - 0.25 * 4.5, -2 - 0.25 * 7});
  CHECK(optimizer.count() == 0);
}

TEST_CASE("accumulate adds into its slot and clear empties it after the last reader") {
  SlotTable slots;
  const SlotId sum =
      slots.add({.name = "sum", .dtype = DType::f32, .shape = {3}, .kind = SlotKind::state});
  Graph g(slots);
  const ValueId a = g.input("a", DType::bf16, {3});
  const ValueId total = accumulate(g, g.leaf(sum), a);
  const ValueId squares = sum_squares(g, total);
  g.mark_output(squares, "squares");
  const NodeId before_clear = g.last();
  Graph g2(slots);
  const ValueId b = g2.input("b", DType::f32, {3});
  const ValueId total2 = accumulate(g2, g2.leaf(sum), b);
  const ValueId squares2 = sum_squares(g2, total2);
  g2.mark_output(squares2, "squares");
  clear(g2, total2);
  CHECK(g.node(before_clear).op == &sum_squares_op);

  const Plan plan = make_plan(g, DeviceKind::cpu);
  const Plan plan2 = make_plan(g2, DeviceKind::cpu);
  Executor executor(cpu_memory(), cpu, slots);
  executor.reserve_arena(std::max(plan.arena_bytes, plan2.arena_bytes));
  const Program first = executor.bind(g, plan);
  const Program second = executor.bind(g2, plan2);
  executor.write_slot(sum, Tensor(DType::f32, {3}));
  executor.write(first, a, Tensor::from(Shape{3}, std::vector<float>{1, 2, -3}).to(DType::bf16));
  executor.run_poisoned(first);
  CHECK(values(executor.read_slot(sum)) == std::vector<double>{1, 2, -3});
  CHECK(values(executor.read(first, squares)) == std::vector<double>{14});
  executor.write(second, b, Tensor::from(Shape{3}, std::vector<float>{1, 0, 3}));
  executor.run_poisoned(second);
  CHECK(values(executor.read(second, squares2)) == std::vector<double>{8});
  CHECK(values(executor.read_slot(sum)) == std::vector<double>{0, 0, 0});
}

TEST_CASE("sum of squares: any length, the same bits on any number of threads") {
  for (int64_t n : {0, 1, 15, 4095, 4096, 4097, 100003}) {
    CAPTURE(n);
    const Tensor x = random_tensor({n}, 7);
    long double exact = 0;
    for (float v : x.as<float>()) {
      exact += static_cast<long double>(v) * v;
    }
    const auto emit = [](Graph& g, const std::vector<ValueId>& in) {
      return std::vector<ValueId>{sum_squares(g, in[0])};
    };
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const auto one = values(run({x}, emit)[0]);
    const auto one64 = values(run({x.to(DType::f64)}, emit)[0]);
    omp_set_num_threads(3);
    CHECK(values(run({x}, emit)[0]) == one);
    CHECK(values(run({x.to(DType::f64)}, emit)[0]) == one64);
    omp_set_num_threads(threads);
    CHECK(one[0] == static_cast<double>(static_cast<float>(one64[0])));
    CHECK(std::abs(one64[0] - static_cast<double>(exact)) <= 1e-14 * static_cast<double>(exact));
  }
}

TEST_CASE("updates measure the gradient and how far the weight moves, on any number of threads") {
  const int64_t n = 20011;
  const Tensor weight = random_tensor({n}, 1);
  const Tensor gradient = random_tensor({n}, 2);
  SlotTable slots;
  const auto slot = [&](const char* name, DType dtype, Shape shape) {
    return slots.add({.name = name, .dtype = dtype, .shape = shape, .kind = SlotKind::state});
  };
  const SlotId w = slot("w", DType::f32, {n});
  const SlotId m = slot("m", DType::f32, {n});
  const SlotId v = slot("v", DType::f32, {n});
  const SlotId step = slot("step", DType::i64, {1});
  const SlotId copy = slot("copy", DType::bf16, {n});
  const auto run_once = [&](bool adam, bool with_copy, const UpdateMeasures& measures) {
    Graph g(slots);
    const ValueId in = g.input("gradient", DType::f32, {n});
    const ValueId lr = g.input("lr", DType::f32, {1});
    const ValueId scale = g.input("scale", DType::f32, {1});
    const UpdateOut out =
        adam ? adamw(g,
                     {.weight = g.leaf(w),
                      .gradient = in,
                      .m = g.leaf(m),
                      .v = g.leaf(v),
                      .step = g.leaf(step),
                      .lr = lr,
                      .grad_scale = scale,
                      .copy = with_copy ? g.leaf(copy) : kNoValue},
                     {.weight_decay = 0.1, .measures = measures})
             : sgd(g, {.weight = g.leaf(w), .gradient = in, .lr = lr, .grad_scale = scale},
                   {.measures = measures});
    CHECK((out.squares != kNoValue) == measures.squares);
    CHECK((out.change != kNoValue) == (measures.change != ChangeMetric::none));
    std::vector<ValueId> wanted;
    for (const ValueId x : {out.squares, out.change}) {
      if (x != kNoValue) {
        g.mark_output(x, fmt::format("out{}", x));
        wanted.push_back(x);
      }
    }
    verify(g, "building");
    const Plan plan = make_plan(g, DeviceKind::cpu);
    Executor executor(cpu_memory(), cpu, slots);
    const Program program = executor.bind(g, plan);
    for (const SlotId s : {m, v, step, copy}) {
      executor.write_slot(s, Tensor(slots[s].dtype, slots[s].shape));
    }
    executor.write_slot(w, weight);
    executor.write(program, in, gradient);
    executor.write(program, lr, scalar(0.01));
    executor.write(program, scale, scalar(0.5));
    executor.run_poisoned(program);
    std::vector<double> result = values(executor.read_slot(w));
    if (with_copy) {
      CHECK(values(executor.read_slot(copy)) == values(executor.read_slot(w).to(DType::bf16)));
    }
    for (const ValueId x : wanted) {
      result.push_back(values(executor.read(program, x))[0]);
    }
    return result;
  };
  const auto before = values(weight);
  long double squares = 0;
  for (const double g : values(gradient)) {
    squares += static_cast<long double>(g) * g;
  }
  for (const bool adam : {true, false}) {
    const auto plain = run_once(adam, false, {});
    for (const ChangeMetric metric : {ChangeMetric::none, ChangeMetric::guarded,
                                      ChangeMetric::relative, ChangeMetric::norm_ratio}) {
      for (const bool with_copy : {false, adam}) {
        CAPTURE(adam);
        CAPTURE(static_cast<int>(metric));
        const UpdateMeasures measures{.squares = true, .change = metric, .floor = 0.1};
        const int threads = omp_get_max_threads();
        omp_set_num_threads(1);
        const auto got = run_once(adam, with_copy, measures);
        omp_set_num_threads(3);
        CHECK(run_once(adam, with_copy, measures) == got);
        omp_set_num_threads(threads);
        const auto elements = static_cast<size_t>(n);
        // Measuring changes nothing.
        CHECK(std::equal(plain.begin(), plain.end(), got.begin()));
        CHECK(got[elements] == doctest::Approx(static_cast<double>(squares)).epsilon(1e-6));
        double moved = 0;
        double size = 0;
        for (size_t i = 0; i < elements; ++i) {
          const double dw = std::abs(got[i] - before[i]);
          const double of = std::abs(before[i]);
          moved += metric == ChangeMetric::guarded    ? dw / std::max(of, 0.1)
                   : metric == ChangeMetric::relative ? dw / of
                                                      : dw;
          size += of;
        }
        if (metric == ChangeMetric::none) {
          CHECK(got.size() == elements + 1);
        } else {
          const double wanted =
              metric == ChangeMetric::norm_ratio ? moved / size : moved / static_cast<double>(n);
          CHECK(got[elements + 1] == doctest::Approx(wanted).epsilon(1e-5));
        }
      }
    }
  }
}

TEST_CASE("the change of zero weights is finite where it is guarded, as the original's where not") {
  const auto change_of_zeros = [](ChangeMetric metric, double gradient) {
    SlotTable slots;
    const SlotId w =
        slots.add({.name = "w", .dtype = DType::f32, .shape = {2}, .kind = SlotKind::state});
    Graph g(slots);
    const ValueId in = g.input("gradient", DType::f32, {2});
    const ValueId lr = g.input("lr", DType::f32, {1});
    const UpdateOut out = sgd(g, {.weight = g.leaf(w), .gradient = in, .lr = lr},
                              {.measures = {.change = metric, .floor = 0.5}});
    g.mark_output(out.change, "change");
    const Plan plan = make_plan(g, DeviceKind::cpu);
    Executor executor(cpu_memory(), cpu, slots);
    const Program program = executor.bind(g, plan);
    executor.write_slot(w, Tensor(DType::f32, {2}));
    executor.write(program, in,
                   Tensor::from(Shape{2}, std::vector<double>{gradient, gradient}).to(DType::f32));
    executor.write(program, lr, scalar(0.25));
    executor.run(program);
    return values(executor.read(program, out.change))[0];
  };
  CHECK(change_of_zeros(ChangeMetric::guarded, 1) == 0.5);
  CHECK(change_of_zeros(ChangeMetric::norm_ratio, 1) == 0.5);
  CHECK(change_of_zeros(ChangeMetric::guarded, 0) == 0);
  CHECK(std::isinf(change_of_zeros(ChangeMetric::relative, 1)));
  CHECK(std::isnan(change_of_zeros(ChangeMetric::relative, 0)));
}

TEST_CASE("clip factor: global norm, min(1, max / (norm + 1e-6)), NaN and infinity are passed on") {
  const auto clip = [](std::vector<double> sums, double max_norm) {
    std::vector<Tensor> inputs;
    for (double s : sums) {
      inputs.push_back(scalar(s));
    }
    const auto out = run(inputs, [&](Graph& g, const std::vector<ValueId>& in) {
      const ClipOut clip_out = clip_factor(g, in, max_norm);
      return std::vector<ValueId>{clip_out.norm, clip_out.factor};
    });
    return std::pair(values(out[0])[0], values(out[1])[0]);
  };
  CHECK(clip({9, 16}, 1).first == 5);
  CHECK(clip({9, 16}, 1).second == doctest::Approx(1 / (5 + 1e-6)).epsilon(1e-7));
  CHECK(clip({9, 0, 16}, 10).second == 1);
  CHECK(clip({0}, 1).second == 1);
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(clip({1, infinity}, 1) == std::pair(infinity, 0.0));
  CHECK(std::isnan(clip({1, std::nan("")}, 1).second));
}

TEST_CASE("updates refuse what does not fit") {
  SlotTable slots;
  const auto state = [&](const char* name, DType dtype, Shape shape) {
    return slots.add({.name = name, .dtype = dtype, .shape = shape, .kind = SlotKind::state});
  };
  const SlotId w = state("w", DType::f32, {4});
  const SlotId m = state("m", DType::f32, {4});
  const SlotId v = state("v", DType::f32, {4});
  const SlotId half = state("half", DType::bf16, {4});
  const SlotId step = state("step", DType::i64, {1});
  Graph g(slots);
  const ValueId lr = g.input("lr", DType::f32, {1});
  const ValueId gradient = g.input("gradient", DType::f32, {4});
  const ValueId wrong = g.input("wrong", DType::f32, {5});
  const ValueId narrow = g.input("narrow", DType::bf16, {4});
  const AdamWInputs good{g.leaf(w), gradient, g.leaf(m), g.leaf(v), g.leaf(step), lr};
  CHECK_NOTHROW(adamw(g, good, {}));
  const auto refused = [&](auto change) {
    AdamWInputs bad = good;
    change(bad);
    CHECK_THROWS_AS(adamw(g, bad, {}), ShapeError);
  };
  refused([&](AdamWInputs& in) { in.gradient = wrong; });
  const ValueId wide = g.input("wide", DType::f64, {4});
  refused([&](AdamWInputs& in) { in.gradient = wide; });
  refused([&](AdamWInputs& in) { in.m = g.leaf(half); });
  refused([&](AdamWInputs& in) { in.v = kNoValue; });
  refused([&](AdamWInputs& in) { in.step = lr; });
  refused([&](AdamWInputs& in) { in.lr = gradient; });
  refused([&](AdamWInputs& in) { in.grad_scale = g.leaf(step); });
  CHECK_THROWS_AS(adamw(g, good, {.beta1 = 1}), ShapeError);
  const SgdInputs plain{.weight = g.leaf(w), .gradient = gradient, .lr = lr};
  CHECK_NOTHROW(sgd(g, plain, {}));
  CHECK_THROWS_AS(sgd(g, plain, {.momentum = 0.9}), ShapeError);
  CHECK_THROWS_AS(sgd(g, plain, {.nesterov = true}), ShapeError);
  CHECK_THROWS_AS(accumulate(g, narrow, gradient), ShapeError);
  CHECK_THROWS_AS(clip_factor(g, std::vector<ValueId>{lr}, 0), ShapeError);
}

}  // namespace lithe
