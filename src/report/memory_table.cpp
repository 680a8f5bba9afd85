#include "report/memory_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "report/text_table.h"
#include "report/units.h"

namespace lithe {
namespace {

std::string lifetime(const PlannedValue& value, const MemoryReport& report) {
  if (value.first < 0) {
    return value.last >= static_cast<int>(report.order.size()) ? "always"
                                                               : fmt::format("..{}", value.last);
  }
  return fmt::format("{}..{}", value.first, value.last);
}

}  // namespace

std::string peak_difference(const MemoryReport& report) {
  if (report.measured_peak_bytes < 0 || report.predicted_peak_bytes <= 0) {
    return "not measured";
  }
  if (report.measured_peak_bytes == report.predicted_peak_bytes) {
    return "exact";
  }
  return fmt::format(
      "{:+.2f} %",
      100.0 * static_cast<double>(report.measured_peak_bytes - report.predicted_peak_bytes) /
          static_cast<double>(report.predicted_peak_bytes));
}

std::string pass_table(const MemoryReport& report) {
  if (report.passes.empty()) {
    return "";
  }
  std::vector<std::vector<std::string>> rows = {
      {"pass", "sites", "peak before", "peak after", "change", "what"}};
  for (const PassRow& pass : report.passes) {
    std::string what = printable(pass.what);
    if (!pass.note.empty()) {
      what += " (" + printable(pass.note) + ")";
    }
    const int64_t change = pass.bytes_after - pass.bytes_before;
    rows.push_back({printable(pass.name), fmt::format("{}", pass.sites),
                    format_bytes(pass.bytes_before), format_bytes(pass.bytes_after),
                    pass.bytes_before > 0
                        ? fmt::format("{:+.1f} %", 100.0 * static_cast<double>(change) /
                                                       static_cast<double>(pass.bytes_before))
                        : "–",
                    what});
  }
  return "Passes\n" + align_columns(rows, {Align::kLeft, Align::kRight, Align::kRight,
                                           Align::kRight, Align::kRight, Align::kLeft});
}

std::string memory_table(const MemoryReport& report) {
  const int64_t live = report.live_at_peak();
  std::string text = "Memory at the peak";
  if (!report.device.empty()) {
    text += " on " + printable(report.device);
  }
  text += "\n";

  std::vector<std::vector<std::string>> rows = {{"class", "bytes", "share"}};
  for (int c = 0; c < kMemoryClassCount; ++c) {
    const int64_t bytes = report.peak_by_class[static_cast<size_t>(c)];
    if (bytes != 0) {
      rows.push_back({std::string(memory_class_name(static_cast<MemoryClass>(c))),
                      format_mebibytes(bytes), format_share(bytes, report.predicted_peak_bytes)});
    }
  }
  if (report.predicted_peak_bytes > live) {
    rows.push_back({"alignment and gaps", format_mebibytes(report.predicted_peak_bytes - live),
                    format_share(report.predicted_peak_bytes - live, report.predicted_peak_bytes)});
  }
  rows.push_back({"predicted peak", format_mebibytes(report.predicted_peak_bytes),
                  report.predicted_peak_bytes > 0 ? "100.0 %" : "–"});
  if (report.measured_peak_bytes >= 0) {
    rows.push_back(
        {"measured peak", format_mebibytes(report.measured_peak_bytes), peak_difference(report)});
  }
  if (report.context_bytes > 0) {
    rows.push_back({"context, beside it", format_mebibytes(report.context_bytes), ""});
  }
  if (report.host_bytes > 0) {
    rows.push_back({"in host memory, beside it", format_mebibytes(report.host_bytes), ""});
  }
  text += align_columns(rows, {Align::kLeft, Align::kRight, Align::kRight});
  text += fmt::format("  = {} persistent + {} arena\n", format_bytes(report.persistent_bytes),
                      format_bytes(report.arena_bytes));

  const auto largest = largest_at_peak(report, 10);
  if (!largest.empty()) {
    const size_t position = static_cast<size_t>(std::max(report.peak_position, 0));
    text +=
        fmt::format("\nLargest values alive at the peak (position {} of {}{})\n",
                    report.peak_position, report.order.size(),
                    position < report.order.size() ? ", " + printable(report.order[position]) : "");
    rows = {{"bytes", "share", "class", "lifetime", "value"}};
    for (const PlannedValue* value : largest) {
      rows.push_back({format_bytes(value->bytes),
                      format_share(value->bytes, report.predicted_peak_bytes),
                      std::string(memory_class_name(value->cls)), lifetime(*value, report),
                      printable(value->name)});
    }
    text += align_columns(
        rows, {Align::kRight, Align::kRight, Align::kLeft, Align::kRight, Align::kLeft});
  }
  const std::string passes = pass_table(report);
  return passes.empty() ? text : text + "\n" + passes;
}

}  // namespace lithe
