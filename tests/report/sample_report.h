// A small, hand-checkable memory report: four positions, the peak at position 2.
#pragma once

#include "report/memory_report.h"

namespace lithe {

inline MemoryReport sample_report() {
  constexpr int64_t kMiB = int64_t{1} << 20;
  MemoryReport report;
  report.device = "cpu, 2 threads";
  report.order = {"forward/a", "forward/b", "backward/b", "update/b"};
  report.values = {
      {"b.weight", 4 * kMiB, 0, MemoryClass::weights, -1, 4},
      {"b.adamw", 8 * kMiB, 4 * kMiB, MemoryClass::optimizer, -1, 4},
      {"a.out", 2 * kMiB, 0, MemoryClass::saved_activations, 0, 2},
      {"b.out", 1 * kMiB, 2 * kMiB, MemoryClass::temporaries, 1, 1},
      {"b.weight.grad", 4 * kMiB, 3 * kMiB, MemoryClass::gradients, 2, 3},
  };
  for (int position = 0; position < 4; ++position) {
    MemoryByClass live{};
    for (const PlannedValue& value : report.values) {
      if (value.first <= position && position <= value.last) {
        live[static_cast<size_t>(value.cls)] += value.bytes;
      }
    }
    report.timeline.push_back(live);
  }
  report.peak_position = 2;
  report.peak_by_class = report.timeline[2];
  report.persistent_bytes = 12 * kMiB;
  report.arena_bytes = 7 * kMiB;
  report.predicted_peak_bytes = 19 * kMiB;
  report.measured_peak_bytes = 19 * kMiB;
  report.passes = {{"freeze", "1 of 2 blocks", 6, 38 * kMiB, 19 * kMiB, "block 0"}};
  return report;
}

}  // namespace lithe
