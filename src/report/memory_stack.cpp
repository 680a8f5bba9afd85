#include "report/memory_stack.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "report/units.h"

namespace lithe {

std::string class_label(MemoryClass cls) {
  std::string label(memory_class_name(cls));
  std::replace(label.begin(), label.end(), '_', ' ');
  return label;
}

std::string class_key(MemoryClass cls) {
  return fmt::format("<span class=key><i class=c-{}></i>{}</span>", memory_class_name(cls),
                     class_label(cls));
}

int64_t total_bytes(const MemoryByClass& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

AxisUnit axis_unit(int64_t peak) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  if (peak < kMiB) {
    return {"KiB", 1024.0};
  }
  return peak < 16 * 1024 * kMiB ? AxisUnit{"MiB", 1048576.0} : AxisUnit{"GiB", 1073741824.0};
}

double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

std::string stacked_bar(const MemoryReport& report, int64_t widest) {
  const double full = static_cast<double>(widest);
  std::string bar = "<div class=bar>";
  for (const MemoryClass cls : kStackOrder) {
    const int64_t bytes = report.peak_by_class[static_cast<size_t>(cls)];
    if (bytes > 0) {
      bar += fmt::format("<i class=c-{} style=\"width:{:.3f}%\" title=\"{}: {} ({})\"></i>",
                         memory_class_name(cls), percent(static_cast<double>(bytes), full),
                         class_label(cls), format_bytes(bytes),
                         format_share(bytes, report.predicted_peak_bytes));
    }
  }
  const int64_t gaps = report.predicted_peak_bytes - report.live_at_peak();
  if (gaps > 0) {
    bar +=
        fmt::format("<i class=gaps style=\"width:{:.3f}%\" title=\"alignment and gaps: {}\"></i>",
                    percent(static_cast<double>(gaps), full), format_bytes(gaps));
  }
  return bar + "</div>";
}

}  // namespace lithe
