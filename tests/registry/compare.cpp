#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "registry/case_graph.h"
#include "registry/fills.h"
#include "registry/modes.h"
#include "tensor/ops/op_table.h"

namespace lithe::registry {
namespace {

constexpr double kSinglePrecision = 1e-7;   // NMSE in fp32
constexpr double kDoublePrecision = 1e-18;  // fused against definition: 1e-9 relative

// Unit roundoff of a 16-bit type: 8 and 11 significant bits.
double roundoff(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : 0x1p-11; }

// A tensor below this in fp64 is zero in exact arithmetic (the gradient of a norm over one
// element): what is left is rounding noise of numbers near 1, perhaps times 1 / sqrt(eps), and no
// relative error is defined. Its error is taken relative to 1 instead.
constexpr double kZero = 1e-10;
// sum (a - b)^2 / sum b^2; infinite when one of the two is not finite, or integers differ.
double nmse(const Tensor& a, const Tensor& b) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  if (a.shape() != b.shape()) {
    return kInfinite;
  }
  if (!is_floating(a.dtype()) || !is_floating(b.dtype())) {
    const bool same = a.dtype() == b.dtype() &&
                      std::memcmp(a.data(), b.data(), static_cast<size_t>(a.bytes())) == 0;
    return same ? 0 : kInfinite;
  }
  const Tensor x = a.to(DType::f64);
  const Tensor y = b.to(DType::f64);
  double error = 0;
  double scale = 0;
  double largest = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double p = x.as<double>()[static_cast<size_t>(i)];
    const double q = y.as<double>()[static_cast<size_t>(i)];
    if (!std::isfinite(p) || !std::isfinite(q)) {
      return kInfinite;
    }
    error += (p - q) * (p - q);
    scale += q * q;
    largest = std::max(largest, std::abs(q));
  }
  scale = largest < kZero ? static_cast<double>(y.numel()) : scale;
  return error == 0 ? 0 : error / scale;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.data(), b.data(), static_cast<size_t>(a.bytes())) == 0;
}

const Tensor* find(const std::vector<Result>& results, std::string_view name) {
  const auto at =
      std::find_if(results.begin(), results.end(), [&](const Result& r) { return r.name == name; });
  return at == results.end() ? nullptr : &at->value;
}

bool same_nodes(const Graph& a, const Graph& b) {
  const std::vector<NodeId> x = a.order();
  const std::vector<NodeId> y = b.order();
  return std::equal(x.begin(), x.end(), y.begin(), y.end(), [&](NodeId n, NodeId m) {
    return a.node(n).op == b.node(m).op && a.node(n).output_count == b.node(m).output_count;
  });
}

class Comparison {
 public:
  Comparison(const Case& c, const Device& device, uint64_t seed, Report& report, OpSet& seen)
      : case_(c), device_(device), seed_(seed), report_(report), seen_(seen) {}

  void run() {
    if (device_.memory->kind() == DeviceKind::cpu) {
      in_double();
    }
    in(DType::f32);
    if (case_.halves) {
      in(DType::bf16);
      in(DType::f16);
    }
  }

 private:
  struct Feed {
    std::vector<Tensor> inputs;
    Tensor cotangent;
  };

  Feed feed_for(const CaseGraph& built, DType dtype) const {
    return {make_inputs(case_, dtype, seed_), make_cotangent(built, seed_)};
  }
  // The same numbers for the fp64 graph.
  Feed widen(const Feed& feed, const CaseGraph& to) const {
    Feed out{convert_inputs(case_, feed.inputs, DType::f64), feed.cotangent};
    if (to.cotangent != kNoValue) {
      out.cotangent = feed.cotangent.to(to.graph->dtype(to.cotangent));
    }
    return out;
  }

  std::vector<Result> run_plain(const CaseGraph& built, const Feed& feed, const Device& device) {
    Session session(built, device.memory, device.lookup);
    session.write(feed.inputs, feed.cotangent);
    session.run_poisoned();
    for (NodeId n : built.graph->order()) {
      seen_.insert(built.graph->node(n).op);
    }
    return session.results();
  }

  std::vector<Result> run_cpu(const CaseGraph& built, const Feed& feed) {
    return run_plain(built, feed, {cpu_memory(), cpu_kernel});
  }

  // The graph on the device with guards around every buffer; then the same bits must come from the
  // real plan, poisoned, and with the inputs dying in the op (in-place kernels).
  std::vector<Result> run_guarded(const CaseGraph& built, const Feed& feed, DType dtype) {
    const std::string_view type = dtype_name(dtype);
    Session session(built, device_.memory, device_.lookup, true);
    session.poison();
    session.write(feed.inputs, feed.cotangent);
    session.run();
    std::vector<Result> out = session.results();
    const int64_t outside = session.bytes_written_outside();
    report_.check(outside == 0, case_, fmt::format("guards {}", type),
                  fmt::format("{} bytes written outside of every buffer", outside));
    expect_same_bits(out, run_plain(built, feed, device_), fmt::format("poisoned plan {}", type));
    const CaseGraph chained = build_case(case_, {.dtype = dtype, .chained = true});
    expect_same_bits(out, run_plain(chained, feed, device_), fmt::format("in place {}", type));
    return out;
  }

  // The library's products, and whether several of them are one, depend on where operands lie; a
  // plan gives each the same place in every run, but two plans may differ by roundings.
  bool chooses_by_address() const {
    const std::string_view op = case_.op->name;
    return device_.memory->kind() == DeviceKind::cuda &&
           (op == "matmul" || op.starts_with("linear"));
  }
  // Roundings of a result, of which products that run one after the other make one each.
  double roundings() const {
    const std::string_view op = case_.op->name;
    return op == "linear_packed_dx" ? static_cast<double>(case_.inputs.size()) - 1 : 1;
  }
  // What two orders of summation may differ by: roundings of the result on either side, one at
  // least on each, or those of the fp32 sums. A rounding of a number in [1, 2) is a third of the
  // squared half step, which is up to four times as much of its square; twice what is to be
  // expected.
  double summation_nmse(DType dtype) const {
    const double few = 4.0 / 3.0 * (1 + roundings());
    return dtype == DType::bf16 ? few * 0x1p-18 : dtype == DType::f16 ? few * 0x1p-24 : 1e-10;
  }

  void expect_same_bits(const std::vector<Result>& a, const std::vector<Result>& b,
                        const std::string& what) {
    for (const Result& r : a) {
      const Tensor* other = find(b, r.name);
      bool ok = other != nullptr && same_bits(r.value, *other);
      if (!ok && other != nullptr && chooses_by_address()) {
        ok = nmse(*other, r.value) < summation_nmse(r.value.dtype());
      }
      report_.check(ok, case_, fmt::format("{}, {}", what, r.name),
                    other == nullptr
                        ? "missing"
                        : fmt::format("other bits, NMSE {:.2g}", nmse(*other, r.value)));
    }
  }

  void expect_near(const std::vector<Result>& a, const std::vector<Result>& b, double bound,
                   const std::string& what) {
    for (const Result& r : a) {
      const Tensor* other = find(b, r.name);
      const double error =
          other == nullptr ? std::numeric_limits<double>::infinity() : nmse(r.value, *other);
      report_.check(error <= bound, case_, fmt::format("{}, {}", what, r.name),
                    fmt::format("NMSE {:.3g} above {:.3g}", error, bound), error);
    }
  }

  bool has_definition(const CaseGraph& built) const {
    const std::vector<NodeId> order = built.graph->order();
    return std::any_of(order.begin(), order.end(),
                       [&](NodeId n) { return built.graph->node(n).op->define != nullptr; });
  }

  void in_double() {
    const CaseGraph built = build_case(case_, {.dtype = DType::f64});
    const Feed feed = feed_for(built, DType::f64);
    const std::vector<Result> fused = run_guarded(built, feed, DType::f64);
    if (has_definition(built)) {
      const CaseGraph unfused = build_case(case_, {.dtype = DType::f64, .expanded = true});
      expect_near(fused, run_cpu(unfused, feed), kDoublePrecision, "definition fp64");
    }
  }

  void in(DType dtype) {
    const std::string_view type = dtype_name(dtype);
    const CaseGraph built = build_case(case_, {.dtype = dtype});
    bool has_op = false;
    for (NodeId n : built.graph->order()) {
      const OpDef& op = *built.graph->node(n).op;
      has_op = has_op || &op == case_.op;
      if (device_.lookup(op).run == nullptr) {
        report_.skip(fmt::format("{} has no kernel on {}", op.name, device_.memory->description()));
        return;
      }
    }
    report_.check(has_op, case_, fmt::format("contains its op, {}", type), "it emits other ops");
    const Feed feed = feed_for(built, dtype);
    const CaseGraph exact_graph = build_case(case_, {.dtype = DType::f64});
    const Feed exact_feed = widen(feed, exact_graph);
    const std::vector<Result> exact = run_cpu(exact_graph, exact_feed);
    const std::vector<Result> result = run_guarded(built, feed, dtype);
    std::vector<Result> unfused;
    if (has_definition(built)) {
      unfused = run_plain(build_case(case_, {.dtype = dtype, .expanded = true}), feed, device_);
    }
    if (dtype == DType::f32) {
      expect_near(result, exact, kSinglePrecision, "fp32 against fp64");
      if (device_.memory->kind() != DeviceKind::cpu) {
        expect_near(result, run_cpu(built, feed), kSinglePrecision, "fp32 against the CPU");
      }
      expect_near(unfused, exact, kSinglePrecision, "definition fp32 against fp64");
      return;
    }
    const std::vector<Result> rounded = run_rounded(exact_graph, built, exact_feed);
    for (const Result& r : result) {
      const Tensor* truth = find(exact, r.name);
      if (truth == nullptr) {
        report_.check(false, case_, fmt::format("{}, {}", type, r.name), "not in the fp64 graph");
        continue;
      }
      const double bound = half_bound(r, *truth, unfused, rounded, built, dtype);
      const double error = nmse(r.value, *truth);
      report_.check(error <= bound, case_, fmt::format("{} against fp64, {}", type, r.name),
                    fmt::format("NMSE {:.3g} above {:.3g}", error, bound), error);
    }
  }

  // The fp64 graph with every node's output rounded once to what the 16-bit graph stores there: the
  // error that storing alone causes. Empty where the two graphs differ (casts).
  std::vector<Result> run_rounded(const CaseGraph& exact, const CaseGraph& half, const Feed& feed) {
    if (!same_nodes(*exact.graph, *half.graph)) {
      return {};
    }
    Session session(exact, cpu_memory(), cpu_kernel);
    session.write(feed.inputs, feed.cotangent);
    session.run_rounded(*half.graph);
    return session.results();
  }

  // The error (the root of the NMSE) may be twice that of the definition, op by op; twice what
  // rounding every stored value alone causes; and one rounding of the result, which is within u.
  double half_bound(const Result& r, const Tensor& truth, const std::vector<Result>& unfused,
                    const std::vector<Result>& rounded, const CaseGraph& built, DType dtype) const {
    constexpr double kTwice = 2 * 2;  // of an error, in squares
    const double u = roundoff(dtype);
    double bound = u * u;
    if (const Tensor* t = find(unfused, r.name)) {
      bound = std::max(bound, kTwice * nmse(*t, truth));
    }
    if (const Tensor* t = find(rounded, r.name)) {
      bound = std::max(bound, kTwice * nmse(*t, truth));
    } else {
      // Every node rounds its result once, with errors that at worst add up.
      const double roundings = 1.0 + static_cast<double>(built.graph->order().size());
      bound = std::max(bound, roundings * roundings * u * u);
    }
    return bound;
  }

  const Case& case_;
  const Device& device_;
  uint64_t seed_;
  Report& report_;
  OpSet& seen_;
};

}  // namespace

void compare(const std::vector<Case>& cases, const Device& device, uint64_t seed, Report& report,
             OpSet& seen) {
  for (const Case& c : cases) {
    try {
      Comparison(c, device, seed, report, seen).run();
    } catch (const std::exception& e) {
      report.check(false, c, "runs", e.what());
    }
  }
}

}  // namespace lithe::registry
