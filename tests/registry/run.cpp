#include <fmt/core.h>

#include <chrono>

#include "registry/case_graph.h"
#include "registry/fills.h"
#include "registry/modes.h"

namespace lithe::registry {
namespace {

using Clock = std::chrono::steady_clock;

// Instrumented kernels are slow: who waits, or was cut off, sees how far it came.
class Progress {
 public:
  explicit Progress(size_t total) : total_(total) {}

  void done(const Case& c) {
    ++done_;
    const Clock::time_point now = Clock::now();
    if (now - printed_ > std::chrono::seconds(5) || done_ == total_) {
      printed_ = now;
      const double seconds = std::chrono::duration<double>(now - began_).count();
      fmt::print(stderr, "{} of {} cases, {:.0f} s, {:.0f} s left; {}\n", done_, total_, seconds,
                 seconds / static_cast<double>(done_) * static_cast<double>(total_ - done_),
                 describe(c));
    }
  }

 private:
  size_t total_;
  size_t done_ = 0;
  Clock::time_point began_ = Clock::now();
  Clock::time_point printed_ = began_;
};

void run_once(const Case& c, DType dtype, const Device& device, uint64_t seed, Report& report,
              OpSet& seen) {
  const CaseGraph built = build_case(c, {.dtype = dtype});
  for (NodeId n : built.graph->order()) {
    const OpDef& op = *built.graph->node(n).op;
    if (device.lookup(op).run == nullptr) {
      report.skip(fmt::format("{} has no kernel on {}", op.name, device.memory->description()));
      return;
    }
    seen.insert(&op);
  }
  Session session(built, device.memory, device.lookup, true);
  session.poison();
  session.write(make_inputs(c, dtype, seed), make_cotangent(built, seed));
  session.run();
  const int64_t outside = session.bytes_written_outside();
  report.check(outside == 0, c, fmt::format("guards {}", dtype_name(dtype)),
               fmt::format("{} bytes written outside of every buffer", outside));
}

}  // namespace

void run_all(const std::vector<Case>& cases, const Device& device, uint64_t seed, Report& report,
             OpSet& seen) {
  Progress progress(cases.size());
  for (const Case& c : cases) {
    try {
      run_once(c, DType::f32, device, seed, report, seen);
      if (c.halves) {
        run_once(c, DType::bf16, device, seed, report, seen);
        run_once(c, DType::f16, device, seed, report, seen);
      }
    } catch (const std::exception& e) {
      report.check(false, c, "runs", e.what());
    }
    progress.done(c);
  }
}

}  // namespace lithe::registry
