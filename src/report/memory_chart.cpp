#include "report/memory_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/chart_scale.h"
#include "report/html_text.h"
#include "report/memory_stack.h"
#include "report/memory_table.h"
#include "report/units.h"

namespace lithe {
namespace {

constexpr size_t kMaxPoints = 1000;
constexpr double kWidth = 1000;
constexpr double kHeight = 360;
constexpr double kLeft = 66;
constexpr double kRight = 14;
constexpr double kTop = 40;
constexpr double kBottom = 36;

struct Frame {
  double positions;
  double top_bytes;
  double px(double position) const {
    return kLeft + position / positions * (kWidth - kLeft - kRight);
  }
  double py(double bytes) const {
    return kHeight - kBottom - bytes / top_bytes * (kHeight - kTop - kBottom);
  }
};

std::string layers(const MemoryReport& report, const Frame& frame,
                   const std::vector<size_t>& drawn) {
  std::string svg;
  std::vector<int64_t> base(drawn.size(), 0);
  const double right = frame.px(frame.positions);
  for (const MemoryClass cls : kStackOrder) {
    const size_t c = static_cast<size_t>(cls);
    // Bytes live for the whole of a position, so the edges are steps: the upper edge from left to
    // right, then the lower one back.
    const auto begin = [&](size_t k) {
      return frame.px(k == 0 ? 0.0 : static_cast<double>(drawn[k]));
    };
    const auto end = [&](size_t k) { return k + 1 < drawn.size() ? begin(k + 1) : right; };
    std::string path = "M";
    bool used = false;
    for (size_t k = 0; k < drawn.size(); ++k) {
      const int64_t bytes = report.timeline[drawn[k]][c];
      used = used || bytes != 0;
      path += fmt::format("{}{:.1f} {:.1f}H{:.1f}", k == 0 ? "" : "L", begin(k),
                          frame.py(static_cast<double>(base[k] + bytes)), end(k));
    }
    for (size_t k = drawn.size(); k-- > 0;) {
      path += fmt::format("L{:.1f} {:.1f}H{:.1f}", end(k), frame.py(static_cast<double>(base[k])),
                          begin(k));
      base[k] += report.timeline[drawn[k]][c];
    }
    if (used) {
      svg += fmt::format("<path class=\"area c-{}\" d=\"{}Z\" />", memory_class_name(cls), path);
    }
  }
  return svg;
}

std::string phase_bands(const std::vector<Phase>& phases, const Frame& frame) {
  std::string svg;
  for (size_t i = 0; i < phases.size(); ++i) {
    const double x = frame.px(phases[i].first);
    const double width = frame.px(phases[i].last + 1) - x;
    svg += fmt::format("<rect class=\"band b{}\" x={:.1f} y={:.1f} width={:.1f} height={:.1f} />",
                       i % 2, x, kTop - 20, width, kHeight - kTop - kBottom + 20);
    // About 6.5 units a letter: a name that does not fit is left to the tooltip.
    if (width > 6.5 * display_width(phases[i].name)) {
      svg += fmt::format("<text class=\"phase mid\" x={:.1f} y={:.1f}>{}</text>", x + width / 2,
                         kTop - 6, escape_html(phases[i].name));
    }
  }
  return svg;
}

std::string peak_mark(const MemoryReport& report, const Frame& frame) {
  const double x = frame.px(report.peak_position + 0.5);
  const double y = frame.py(static_cast<double>(report.live_at_peak()));
  const bool left = x > kWidth / 2;
  return fmt::format(
      "<line class=peak x1={0:.1f} x2={0:.1f} y1={1:.1f} y2={2:.1f} />"
      "<circle class=peak cx={0:.1f} cy={3:.1f} r=4 />"
      "<text class=\"peaklabel {4}\" x={5:.1f} y={6:.1f}>peak {7}</text>",
      x, kTop - 20, kHeight - kBottom, y, left ? "end" : "start", x + (left ? -9 : 9),
      std::max(y - 7, kTop - 6), format_bytes(report.live_at_peak()));
}

std::string axes(const Frame& frame, const std::vector<double>& ticks, const AxisUnit& unit) {
  std::string svg;
  for (const double tick : ticks) {
    const double y = frame.py(tick * unit.bytes);
    svg += fmt::format(
        "<line class=grid x1={:.1f} x2={:.1f} y1={:.1f} y2={:.1f} />"
        "<text class=\"tick end\" x={:.1f} y={:.1f}>{}</text>",
        kLeft, kWidth - kRight, y, y, kLeft - 8, y + 4, format_number(tick));
  }
  svg += fmt::format("<text class=\"tick end\" x={:.1f} y={:.1f}>{}</text>", kLeft - 8, kTop - 10,
                     unit.name);
  for (const double tick : axis_ticks(0, frame.positions, 10)) {
    if (tick == std::floor(tick) && tick <= frame.positions) {
      svg += fmt::format("<text class=\"tick mid\" x={:.1f} y={:.1f}>{}</text>", frame.px(tick),
                         kHeight - kBottom + 17, format_count(tick));
    }
  }
  svg += fmt::format("<text class=\"tick end\" x={:.1f} y={:.1f}>position in the plan</text>",
                     kWidth - kRight, kHeight - 3);
  return svg;
}

std::string tooltip_json(const MemoryReport& report, const Frame& frame,
                         const std::vector<size_t>& drawn) {
  nlohmann::ordered_json data;
  nlohmann::ordered_json totals = nlohmann::ordered_json::array();
  for (const size_t i : drawn) {
    data["x"].push_back(std::round(frame.px(static_cast<double>(i) + 0.5) * 10) / 10);
    data["t"].push_back(
        fmt::format("{}: {}", i, i < report.order.size() ? report.order[i] : std::string()));
    totals.push_back(format_bytes(total_bytes(report.timeline[i])));
  }
  data["s"].push_back({{"n", "total"}, {"c", "all"}, {"v", std::move(totals)}});
  // The list reads from the top of the stack down, like the chart.
  for (int k = kMemoryClassCount - 1; k >= 0; --k) {
    const MemoryClass cls = kStackOrder[k];
    nlohmann::ordered_json column = nlohmann::ordered_json::array();
    bool used = false;
    for (const size_t i : drawn) {
      const int64_t bytes = report.timeline[i][static_cast<size_t>(cls)];
      used = used || bytes != 0;
      column.push_back(bytes == 0 ? "" : format_bytes(bytes));
    }
    if (used) {
      data["s"].push_back({{"n", class_label(cls)},
                           {"c", fmt::format("c-{}", memory_class_name(cls))},
                           {"v", std::move(column)}});
    }
  }
  return json_for_script(data);
}

}  // namespace

std::vector<Phase> plan_phases(const std::vector<std::string>& order) {
  std::vector<Phase> found;
  size_t without = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const size_t slash = order[i].find('/');
    if (slash == std::string::npos || slash == 0) {
      ++without;
      continue;
    }
    const std::string name = order[i].substr(0, slash);
    const auto same = std::find_if(found.begin(), found.end(),
                                   [&](const Phase& phase) { return phase.name == name; });
    if (same == found.end()) {
      found.push_back({name, static_cast<int>(i), static_cast<int>(i)});
      if (found.size() > 64) {
        return {};  // names of layers, not of phases
      }
    } else {
      same->last = static_cast<int>(i);
    }
  }
  std::vector<Phase> phases;  // `found` is already ordered by its first position
  for (const Phase& phase : found) {
    if (!phases.empty() && phase.first <= phases.back().last) {
      phases.back().name += " + " + phase.name;
      phases.back().last = std::max(phases.back().last, phase.last);
    } else {
      phases.push_back(phase);
    }
  }
  const bool useful = phases.size() >= 2 && phases.size() <= 8 && without * 2 < order.size();
  return useful ? phases : std::vector<Phase>{};
}

std::string render_memory_timeline(const MemoryReport& report) {
  if (report.timeline.empty()) {
    return "";
  }
  std::vector<int64_t> totals;
  int64_t most = 1;
  for (const MemoryByClass& live : report.timeline) {
    totals.push_back(total_bytes(live));
    most = std::max(most, totals.back());
  }
  const size_t peak = static_cast<size_t>(
      std::clamp<int64_t>(report.peak_position, 0, static_cast<int64_t>(totals.size()) - 1));
  const std::vector<size_t> drawn = downsample_maxima(totals, peak, kMaxPoints);
  const AxisUnit unit = axis_unit(most);
  const std::vector<double> ticks = axis_ticks(0, static_cast<double>(most) / unit.bytes, 5);
  const Frame frame{static_cast<double>(totals.size()), ticks.back() * unit.bytes};

  std::string html = "<figure class=chart><figcaption><b>Live bytes over one step</b>";
  for (const MemoryClass cls : kStackOrder) {
    const size_t c = static_cast<size_t>(cls);
    const bool used = std::any_of(report.timeline.begin(), report.timeline.end(),
                                  [&](const MemoryByClass& live) { return live[c] != 0; });
    if (used) {
      html += class_key(cls);
    }
  }
  html += fmt::format(
      "</figcaption><svg viewBox=\"0 0 {:.0f} {:.0f}\" role=img aria-label=\"Live bytes by class "
      "over the order of the plan, peak {}\">{}{}{}{}<line class=cursor y1={:.1f} y2={:.1f} />"
      "</svg>",
      kWidth, kHeight, format_bytes(report.live_at_peak()),
      phase_bands(plan_phases(report.order), frame), axes(frame, ticks, unit),
      layers(report, frame, drawn), peak_mark(report, frame), kTop - 20, kHeight - kBottom);
  html += fmt::format("<script type=\"application/json\">{}</script></figure>\n",
                      tooltip_json(report, frame, drawn));
  return html;
}

std::string render_peak_bars(const MemoryReport& report) {
  const int64_t widest = std::max<int64_t>(
      {report.predicted_peak_bytes, report.measured_peak_bytes, report.live_at_peak(), 1});
  std::string html = fmt::format(
      "<div class=peaks><span>predicted peak</span>{}<b>{}</b><em>{} persistent + {} arena</em>",
      stacked_bar(report, widest), format_bytes(report.predicted_peak_bytes),
      format_bytes(report.persistent_bytes), format_bytes(report.arena_bytes));
  if (report.measured_peak_bytes >= 0) {
    html += fmt::format(
        "<span>measured peak</span><div class=bar><i class=measured style=\"width:{:.3f}%\"></i>"
        "</div><b>{}</b><em>{}</em>",
        percent(static_cast<double>(report.measured_peak_bytes), static_cast<double>(widest)),
        format_bytes(report.measured_peak_bytes),
        report.measured_peak_bytes == report.predicted_peak_bytes
            ? "equal to the prediction"
            : peak_difference(report) + " against the prediction");
  } else {
    html += "<span>measured peak</span><div class=bar></div><b>–</b><em>not measured</em>";
  }
  return html + "</div>\n";
}

std::string render_largest_values(const MemoryReport& report) {
  const auto largest = largest_at_peak(report, 10);
  if (largest.empty()) {
    return "";
  }
  const double most = static_cast<double>(std::max<int64_t>(largest.front()->bytes, 1));
  const double positions = static_cast<double>(std::max<size_t>(report.order.size(), 1));
  std::string html =
      "<h3>Largest values alive at the peak</h3><div class=scroll><table><thead><tr><th>value"
      "<th>class<th class=num>size<th class=num>share<th class=wide><th class=life>lifetime"
      "<tbody>\n";
  for (const PlannedValue* value : largest) {
    const double first = std::clamp(static_cast<double>(value->first), 0.0, positions);
    const double last = std::clamp(static_cast<double>(value->last) + 1, first, positions);
    html += fmt::format(
        "<tr><td class=name>{}<td class=cls><i class=c-{}></i>{}<td class=num>{}<td class=num>{}"
        "<td class=wide><div class=bar><i class=c-{} style=\"width:{:.2f}%\"></i></div>"
        "<td class=life title=\"{}\"><div class=span><u style=\"left:{:.2f}%\"></u>"
        "<i class=c-{} style=\"left:{:.2f}%;width:{:.2f}%\"></i></div>\n",
        escape_html(value->name), memory_class_name(value->cls), class_label(value->cls),
        format_bytes(value->bytes), format_share(value->bytes, report.predicted_peak_bytes),
        memory_class_name(value->cls), percent(static_cast<double>(value->bytes), most),
        value->first < 0 ? "the whole run"
                         : fmt::format("positions {} to {}", value->first, value->last),
        percent(report.peak_position + 0.5, positions), memory_class_name(value->cls),
        percent(first, positions), percent(last - first, positions));
  }
  return html + "</table></div>\n";
}

}  // namespace lithe
