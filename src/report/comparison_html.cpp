#include "report/comparison_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "report/chart_scale.h"
#include "report/comparison_rows.h"
#include "report/html.h"
#include "report/html_text.h"
#include "report/line_chart.h"
#include "report/memory_chart.h"
#include "report/memory_stack.h"
#include "report/units.h"

namespace lithe {
namespace {

constexpr size_t kPoints = 600;  // of a timeline
constexpr size_t kColours = 8;
constexpr size_t kMostValues = 20;
constexpr size_t kMostSingleValues = 100;

// Colour and dashes of a run's line.
std::string line_class(size_t run) {
  return fmt::format("s{} d{}", run % kColours, run / kColours % 3);
}

std::string header(std::span<const ComparedRun> runs) {
  std::vector<std::string> names;
  for (const ComparedRun& run : runs.subspan(1)) {
    names.push_back(run.summary.name);
  }
  return fmt::format(
      "<header><h1>{} against {}</h1><p class=sub>Differences and ratios are to {}. {} of {} are "
      "planned only: nothing was run for them.</p></header>\n",
      escape_html(fmt::format("{}", fmt::join(names, ", "))),
      escape_html(runs.front().summary.name), escape_html(runs.front().summary.name),
      std::count_if(runs.begin(), runs.end(), [](const auto& run) { return run.planned_only; }),
      runs.size());
}

std::string bars(std::span<const ComparedRun> runs) {
  int64_t widest = 1;
  MemoryByClass used{};
  for (const ComparedRun& run : runs) {
    const MemoryReport& memory = run.memory;
    widest = std::max(
        {widest, memory.predicted_peak_bytes, memory.measured_peak_bytes, memory.live_at_peak()});
    for (size_t c = 0; c < used.size(); ++c) {
      used[c] = std::max(used[c], memory.peak_by_class[c]);
    }
  }
  std::string html =
      "<section><h2>Memory at the peak</h2>\n<figure style=\"margin:0\"><figcaption>";
  for (const MemoryClass cls : kStackOrder) {
    html += used[static_cast<size_t>(cls)] > 0 ? class_key(cls) : "";
  }
  html += "</figcaption><div class=peaks>";
  for (const ComparedRun& run : runs) {
    const int64_t measured = run.memory.measured_peak_bytes;
    html +=
        fmt::format("<span>{}</span>{}<b>{}</b><em>{} of the first; {}</em>\n",
                    escape_html(run.summary.name), stacked_bar(run.memory, widest),
                    format_bytes(run.memory.predicted_peak_bytes), peak_ratio(runs.front(), run),
                    measured >= 0 ? "measured " + format_bytes(measured)
                                  : escape_html(kind_of(run)) + ", not measured");
  }
  return html + "</div></figure></section>\n";
}

std::string table(std::span<const ComparedRun> runs, std::span<const ComparisonRow> rows) {
  std::string html = "<div class=scroll><table><thead><tr><th>";
  for (const ComparedRun& run : runs) {
    html += "<th class=num>" + escape_html(run.summary.name);
  }
  html += "<tbody>\n";
  for (const ComparisonRow& row : rows) {
    html += "<tr><td class=cls>";
    if (row.cls) {
      html += fmt::format("<i class=c-{}></i>", memory_class_name(*row.cls));
    }
    html += escape_html(row.label);
    for (const std::string& cell : row.cells) {
      html += "<td class=num>" + escape_html(cell);
    }
    html += "\n";
  }
  return html + "</table></div>\n";
}

std::string value_rows(const ComparedRun& first, const ComparedRun& run,
                       const std::vector<ValueDifference>& values, size_t most) {
  std::string html = fmt::format(
      "<div class=scroll><table><thead><tr><th>value<th>class<th class=num>values<th class=num>{}"
      "<th class=num>{}<th class=num>change<th class=wide><tbody>\n",
      escape_html(first.summary.name), escape_html(run.summary.name));
  const double largest = static_cast<double>(std::abs(values.front().change()));
  for (size_t i = 0; i < std::min(values.size(), most); ++i) {
    const ValueDifference& value = values[i];
    const MemoryClass cls = value.change() < 0 ? value.first_class : value.cls;
    html += fmt::format(
        "<tr><td class=name>{}<td class=cls><i class=c-{}></i>{}<td class=num>{}<td class=num>{}"
        "<td class=num>{}<td class=\"num {}\">{}<td class=wide><div class=bar><i class=c-{} "
        "style=\"width:{:.2f}%\"></i></div>\n",
        escape_html(value.name), memory_class_name(cls), class_change(value), value.count,
        format_presence(value.first_bytes), format_presence(value.bytes),
        value.change() < 0 ? "less" : "more", format_change(value.change()), memory_class_name(cls),
        percent(static_cast<double>(std::abs(value.change())), largest));
  }
  html += "</table></div>\n";
  if (values.size() > most) {
    html += fmt::format("<p class=note>{} smaller ones are left out.</p>\n", values.size() - most);
  }
  return html;
}

std::string values(std::span<const ComparedRun> runs) {
  std::string html;
  const MemoryReport& first = runs.front().memory;
  for (const ComparedRun& run : runs.subspan(1)) {
    html += fmt::format("<h3>{} against {}</h3>\n", escape_html(run.summary.name),
                        escape_html(runs.front().summary.name));
    const std::vector<ValueDifference> layers = values_that_differ(first, run.memory, true);
    if (layers.empty()) {
      html += "<p class=none>None.</p>\n";
      continue;
    }
    html += value_rows(runs.front(), run, layers, kMostValues);
    const std::vector<ValueDifference> single = values_that_differ(first, run.memory);
    html += fmt::format("<details><summary>Value by value ({})</summary>{}</details>\n",
                        single.size(), value_rows(runs.front(), run, single, kMostSingleValues));
  }
  return html.empty() ? ""
                      : "<section><h2>Values that differ</h2>\n<p class=note>Bytes at the peak of "
                        "each; a * stands for the layers.</p>\n" +
                            html + "</section>\n";
}

std::string passes(std::span<const ComparedRun> runs) {
  std::string html;
  for (const ComparedRun& run : runs) {
    for (const PassRow& pass : run.memory.passes) {
      html += fmt::format("<tr><td>{}<td><b>{}</b><td>{}\n", escape_html(run.summary.name),
                          escape_html(pass.name), escape_html(pass.what));
    }
  }
  return html.empty() ? ""
                      : "<section><h2>Passes</h2><div class=scroll><table><thead><tr><th>of<th>pass"
                        "<th>what<tbody>\n" +
                            html + "</table></div></section>\n";
}

std::string section(const std::string& title, std::span<const ComparedRun> runs,
                    const std::vector<ComparisonRow>& rows) {
  return rows.empty() ? ""
                      : fmt::format("<section><h2>{}</h2>{}</section>\n", title, table(runs, rows));
}

// Phases without holes between them: where each begins, and the end.
std::vector<size_t> phase_bounds(const std::vector<Phase>& phases, size_t positions) {
  std::vector<size_t> bounds = {0};
  for (size_t i = 1; i < phases.size(); ++i) {
    bounds.push_back(std::min(static_cast<size_t>(phases[i].first), positions));
  }
  bounds.push_back(positions);
  return bounds;
}

}  // namespace

std::string render_timelines(std::span<const ComparedRun> runs) {
  std::optional<std::vector<std::string>> common;  // names of the phases that all steps have
  int64_t most = 0;
  for (const ComparedRun& run : runs) {
    std::vector<std::string> names;
    for (const Phase& phase : plan_phases(run.memory.order)) {
      names.push_back(phase.name);
    }
    for (const MemoryByClass& live : run.memory.timeline) {
      most = std::max(most, total_bytes(live));
    }
    if (!run.memory.timeline.empty()) {
      common = !common || *common == names ? names : std::vector<std::string>{};
    }
  }
  if (!common) {
    return "";
  }
  const AxisUnit unit = axis_unit(most);
  LineChart chart;
  chart.title = fmt::format("Live bytes over one step ({})", unit.name);
  chart.x_label = "% of the step";
  chart.width = 1000;
  chart.height = 340;
  chart.from_zero = true;
  const size_t parts = std::max<size_t>(common->size(), 1);
  const size_t points = kPoints / parts;  // of a part
  for (size_t r = 0; r < runs.size(); ++r) {
    const MemoryReport& memory = runs[r].memory;
    if (memory.timeline.empty()) {
      continue;
    }
    std::vector<int64_t> totals;
    for (const MemoryByClass& live : memory.timeline) {
      totals.push_back(total_bytes(live));
    }
    const std::vector<size_t> bounds = phase_bounds(
        common->empty() ? std::vector<Phase>{} : plan_phases(memory.order), totals.size());
    LineSeries series{runs[r].summary.name, line_class(r), {}, {}};
    for (size_t part = 0; part < parts; ++part) {
      for (const int64_t bytes : stretch_maxima(totals, bounds[part], bounds[part + 1], points)) {
        series.x.push_back(100 * (static_cast<double>(series.x.size()) + 0.5) /
                           static_cast<double>(points * parts));
        series.y.push_back(static_cast<double>(bytes) / unit.bytes);
      }
    }
    chart.series.push_back(std::move(series));
  }
  std::string note;
  for (size_t part = 0; part < common->size(); ++part) {
    note += fmt::format("{}{} from {:.0f} %", part == 0 ? "" : ", ", (*common)[part],
                        100 * static_cast<double>(part) / static_cast<double>(parts));
  }
  return render_line_chart(chart) +
         fmt::format(
             "<p class=note>Steps have different lengths; {}. Each point is the most that "
             "lives in its stretch.</p>\n",
             common->empty()
                 ? "each is drawn to the whole width"
                 : "each is drawn phase by phase to the same width: " + escape_html(note));
}

std::string render_comparison(std::span<const ComparedRun> runs) {
  const std::string timelines = render_timelines(runs);
  return html_page(
      "Comparison",
      header(runs) + bars(runs) +
          (timelines.empty() ? ""
                             : "<section><h2>Over the step</h2>\n" + timelines + "</section>\n") +
          section("By class", runs, memory_rows(runs)) +
          section("Results", runs, result_rows(runs)) + values(runs) + passes(runs) +
          section("Settings that differ", runs, setting_rows(runs)));
}

}  // namespace lithe
