#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "registry/case_graph.h"
#include "registry/fills.h"
#include "registry/modes.h"

namespace lithe::registry {
namespace {

constexpr double kSeconds = 0.2;  // of repeats for each figure

struct Work {
  double flops = 0;
  double bytes = 0;  // inputs and outputs of every node, each once
};

Work work_of(const Graph& g) {
  Work out;
  for (NodeId n : g.order()) {
    const OpDef& op = *g.node(n).op;
    for (ValueId v : g.inputs(n)) {
      out.bytes += v == kNoValue ? 0.0 : static_cast<double>(g.bytes(v));
    }
    for (ValueId v : g.outputs(n)) {
      out.bytes += static_cast<double>(g.bytes(v));
    }
    const ValueId first = g.output(n, 0);
    out.flops += op.flops != nullptr ? op.flops(g, n) : static_cast<double>(g.shape(first).numel());
  }
  return out;
}

struct Timing {
  double median = 0;
  double fastest = 0;  // on a machine that others use too, nearer to what the kernel can do
};

// Seconds of `repeats` steps in a row.
double time_once(Session& session, int repeats) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (int i = 0; i < repeats; ++i) {
    session.run();
  }
  session.executor().memory().synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Timing time_of(Session& session) {
  time_once(session, 1);
  int repeats = 1;
  if (session.executor().memory().kind() == DeviceKind::cuda) {
    // Enough steps between two synchronisations that starting and ending them does not show.
    constexpr double kSample = 4e-3;
    repeats = static_cast<int>(std::clamp(kSample / time_once(session, 1), 1.0, 200.0));
  }
  std::vector<double> times;
  double total = 0;
  do {
    const double seconds = time_once(session, repeats);
    total += seconds;
    times.push_back(seconds / repeats);
  } while (total < kSeconds);
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2),
                   times.end());
  return {times[times.size() / 2], *std::min_element(times.begin(), times.end())};
}

void measure_case(const Case& c, DType dtype, bool backward, const Device& device, uint64_t seed,
                  Report& report) {
  const CaseGraph built =
      build_case(c, {.dtype = dtype, .gradients = backward, .keep_inputs = true});
  if (backward && built.cotangent == kNoValue) {
    return;
  }
  for (NodeId n : built.graph->order()) {
    if (device.lookup(*built.graph->node(n).op).run == nullptr) {
      report.skip(fmt::format("{} has no kernel on {}", built.graph->node(n).op->name,
                              device.memory->description()));
      return;
    }
  }
  Session session(built, device.memory, device.lookup);
  session.write(make_inputs(c, dtype, seed), make_cotangent(built, seed));
  const Timing timing = time_of(session);
  const double seconds = timing.median;
  const Work work = work_of(*built.graph);
  const std::string_view step = backward ? "forward and backward" : "forward";
  fmt::print("{:<58} {:<5} {:<20} {:>10.2f} us {:>8.1f} GB/s {:>8.1f} GFLOP/s\n", describe(c),
             dtype_name(dtype), step, seconds * 1e6, work.bytes / seconds * 1e-9,
             work.flops / seconds * 1e-9);
  report.record({{"op", c.op->name},
                 {"case", c.name},
                 {"dtype", dtype_name(dtype)},
                 {"step", step},
                 {"seconds", seconds},
                 {"fastest_seconds", timing.fastest},
                 {"gb_per_s", work.bytes / seconds * 1e-9},
                 {"gflop_per_s", work.flops / seconds * 1e-9}});
}

}  // namespace

void measure(const std::vector<Case>& cases, const Device& device, uint64_t seed, Report& report) {
  for (const Case& c : cases) {
    for (const bool backward : {false, true}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        if (dtype == DType::bf16 && !c.halves) {
          continue;
        }
        try {
          measure_case(c, dtype, backward, device, seed, report);
        } catch (const std::exception& e) {
          report.check(false, c, "runs", e.what());
        }
      }
    }
  }
}

}  // namespace lithe::registry
