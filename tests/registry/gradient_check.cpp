#include <algorithm>
#include <cmath>
#include <cstring>

#include "registry/case_graph.h"
#include "registry/fills.h"
#include "registry/modes.h"
#include "tensor/core/name_hash.h"
#include "tensor/core/philox.h"
#include "tensor/ops/op_table.h"

namespace lithe::registry {
namespace {

// Central differences err by h^2 f'''/6, about 2e-11 for the ops' smooth inputs near 1, and by
// rounding, eps |f| / h, about 2e-11 |f|. Both stay four decades below the tolerance.
constexpr double kStep = 1e-5;
constexpr double kTolerance = 1e-6;
constexpr double kZero = 1e-8;         // the absolute error allowed is this times the tolerance
constexpr int64_t kEveryElement = 64;  // inputs up to this size are checked element by element
constexpr int kDirections = 4;         // larger ones along random directions,
constexpr int kSamples = 16;           // and in these many single elements

// f(x) = sum r y(x) as differences of outputs: an output that does not move adds no rounding.
class Function {
 public:
  Function(const CaseGraph& built, const std::vector<Tensor>& inputs, const Tensor& cotangent)
      : session_(built, cpu_memory(), cpu_kernel),
        output_(built.outputs[0]),
        cotangent_(cotangent) {
    session_.write(inputs, {});
  }

  struct Slope {
    double value = 0;
    double moved = 0;  // sum |r y| over the outputs that moved: the size of what was subtracted
  };
  // The derivative at `x`, input i, along `direction`.
  Slope slope(size_t i, const Tensor& x, const std::vector<double>& direction) {
    const Tensor up = at(i, x, direction, kStep);
    const Tensor down = at(i, x, direction, -kStep);
    session_.write_input(i, x);
    Slope out;
    const auto r = cotangent_.as<double>();
    const auto a = up.as<double>();
    const auto b = down.as<double>();
    for (size_t k = 0; k < r.size(); ++k) {
      if (a[k] != b[k]) {
        out.value += r[k] * (a[k] - b[k]) / (2 * kStep);
        out.moved += std::abs(r[k] * a[k]);
      }
    }
    return out;
  }

 private:
  Tensor at(size_t i, const Tensor& x, const std::vector<double>& direction, double h) {
    Tensor moved = x.clone();
    auto values = moved.as<double>();
    for (size_t k = 0; k < values.size(); ++k) {
      values[k] += h * direction[k];
    }
    session_.write_input(i, moved);
    session_.run();
    return session_.read(output_);
  }

  Session session_;
  ValueId output_;
  const Tensor& cotangent_;
};

std::vector<std::vector<double>> directions_of(size_t n, uint64_t seed, uint64_t stream) {
  std::vector<std::vector<double>> out;
  const auto unit = [&](size_t k) {
    std::vector<double> d(n, 0.0);
    d[k] = 1;
    return d;
  };
  if (static_cast<int64_t>(n) <= kEveryElement) {
    for (size_t k = 0; k < n; ++k) {
      out.push_back(unit(k));
    }
    return out;
  }
  for (uint64_t k = 0; k < kSamples; ++k) {
    out.push_back(unit(philox(seed, stream, k).word[0] % n));
  }
  for (uint64_t k = 0; k < kDirections; ++k) {
    const Tensor d = make_normal(DType::f64, Shape{static_cast<int64_t>(n)}, seed, mix(stream, k));
    out.emplace_back(d.as<double>().begin(), d.as<double>().end());
  }
  return out;
}

double largest(const Tensor& x) {
  double out = 0;
  for (double v : x.as<double>()) {
    out = std::max(out, std::abs(v));
  }
  return out;
}

int backward_nodes(const Graph& g) {
  const std::vector<NodeId> order = g.order();
  return static_cast<int>(std::count_if(
      order.begin(), order.end(), [&](NodeId n) { return g.node(n).phase == Phase::backward; }));
}

class GradientCheck {
 public:
  GradientCheck(const Case& c, uint64_t seed, Report& report, OpSet& seen)
      : case_(c),
        seed_(seed),
        report_(report),
        seen_(seen),
        inputs_(make_inputs(c, DType::f64, seed)) {}

  void run() {
    const CaseGraph all = build_case(case_, {});
    if (all.cotangent == kNoValue) {
      return;
    }
    for (NodeId n : all.graph->order()) {
      seen_.insert(all.graph->node(n).op);
    }
    const std::vector<Tensor> analytic = gradients_of(all);
    expect_nothing_unused(all);
    against_differences(analytic, "");
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (is_differentiable(case_.inputs[i])) {
        alone(i, all, analytic[i]);
      }
    }
    const CaseGraph unfused = build_case(case_, {.expanded = true});
    if (unfused.graph->node_count() > 0 && !same_ops(unfused, all)) {
      against_differences(gradients_of(unfused), "definition, ");
    }
  }

 private:
  static bool same_ops(const CaseGraph& a, const CaseGraph& b) {
    const std::vector<NodeId> x = a.graph->order();
    const std::vector<NodeId> y = b.graph->order();
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [&](NodeId n, NodeId m) {
      return a.graph->node(n).op == b.graph->node(m).op;
    });
  }

  std::vector<Tensor> gradients_of(const CaseGraph& built) {
    cotangent_ = make_cotangent(built, seed_);
    Session session(built, cpu_memory(), cpu_kernel);
    session.write(inputs_, cotangent_);
    session.run();
    std::vector<Tensor> out(inputs_.size());
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (built.gradients[i] != kNoValue) {
        out[i] = session.read(built.gradients[i]);
      }
    }
    return out;
  }

  // A rule emits what leads to a wanted gradient and nothing else.
  void expect_nothing_unused(const CaseGraph& built) {
    Graph copy = *built.graph;
    const int before = backward_nodes(copy);
    copy.eliminate_dead();
    const int unused = before - backward_nodes(copy);
    report_.check(unused == 0, case_, "backward nodes are all used",
                  fmt::format("{} of {} lead to no gradient", unused, before));
  }

  void alone(size_t i, const CaseGraph& all, const Tensor& expected) {
    const CaseGraph one = build_case(case_, {.only = static_cast<int>(i)});
    const Tensor got = gradients_of(one)[i];
    const bool same = got.defined() == expected.defined() &&
                      (!got.defined() || std::memcmp(got.data(), expected.data(),
                                                     static_cast<size_t>(got.bytes())) == 0);
    report_.check(same, case_, fmt::format("gradient of input {} alone", i),
                  "other bits than beside the other gradients");
    report_.check(backward_nodes(*one.graph) <= backward_nodes(*all.graph), case_,
                  fmt::format("backward of input {} alone", i),
                  fmt::format("{} nodes, all inputs together {}", backward_nodes(*one.graph),
                              backward_nodes(*all.graph)));
    expect_nothing_unused(one);
  }

  void against_differences(const std::vector<Tensor>& analytic, std::string_view what) {
    const CaseGraph forward = build_case(case_, {.gradients = false, .keep_inputs = true});
    Function f(forward, inputs_, cotangent_);
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const Input& input = case_.inputs[i];
      if (!is_differentiable(input) || inputs_[i].dtype() != DType::f64) {
        continue;
      }
      if (!analytic[i].defined()) {
        report_.check(false, case_, fmt::format("{}gradient of input {}", what, i), "missing");
        continue;
      }
      const auto g = analytic[i].as<double>();
      const double norm = largest(analytic[i]);
      double worst = 0;
      for (const auto& d : directions_of(g.size(), seed_, mix(name_hash(case_.name), i))) {
        double expected = 0;
        double length = 0;
        for (size_t k = 0; k < d.size(); ++k) {
          expected += g[k] * d[k];
          length += d[k] * d[k];
        }
        const Function::Slope slope = f.slope(i, inputs_[i], d);
        // An element far below the input's largest gradient cannot be resolved by differences, nor
        // one below the rounding of what is subtracted: eps / h = 2e-11 of it, 1e-6 of 1e-4. A
        // gradient that is zero in exact arithmetic (a norm over one element) is rounding noise.
        const double scale = std::max({norm * std::sqrt(length), 1e-4 * slope.moved, kZero});
        const double error = std::abs(slope.value - expected) / scale;
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      }
      report_.check(worst <= kTolerance, case_, fmt::format("{}gradient of input {}", what, i),
                    fmt::format("relative error {:.3g} above {:.0e}", worst, kTolerance), worst);
    }
  }

  const Case& case_;
  uint64_t seed_;
  Report& report_;
  OpSet& seen_;
  std::vector<Tensor> inputs_;
  Tensor cotangent_;
};

}  // namespace

void check_gradients(const std::vector<Case>& cases, uint64_t seed, Report& report, OpSet& seen) {
  for (const Case& c : cases) {
    if (c.op->grad == nullptr) {
      continue;
    }
    try {
      GradientCheck(c, seed, report, seen).run();
    } catch (const std::exception& e) {
      report.check(false, c, "runs", e.what());
    }
  }
}

}  // namespace lithe::registry
