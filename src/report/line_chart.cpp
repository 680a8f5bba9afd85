#include "report/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/chart_scale.h"
#include "report/html_text.h"
#include "report/units.h"

namespace lithe {
namespace {

constexpr double kLeft = 58;
constexpr double kRight = 14;
constexpr double kTop = 12;
constexpr double kBottom = 34;

struct Frame {
  std::vector<double> x_ticks, y_ticks;
  double x_low = 0, x_high = 1, width = 0, height = 0;

  double px(double x) const {
    return kLeft + (x - x_low) / (x_high - x_low) * (width - kLeft - kRight);
  }
  double py(double y) const {
    const double low = y_ticks.front();
    const double high = y_ticks.back();
    return height - kBottom - (y - low) / (high - low) * (height - kTop - kBottom);
  }
};

std::string axes(const Frame& frame, const LineChart& chart) {
  std::string svg;
  for (const double tick : frame.y_ticks) {
    svg += fmt::format(
        "<line class=grid x1={:.1f} x2={:.1f} y1={:.1f} y2={:.1f} />"
        "<text class=\"tick end\" x={:.1f} y={:.1f}>{}</text>",
        kLeft, frame.width - kRight, frame.py(tick), frame.py(tick), kLeft - 8, frame.py(tick) + 4,
        escape_html(chart.format(tick)));
  }
  for (const double tick : frame.x_ticks) {
    if (tick < frame.x_low || tick > frame.x_high || tick != std::floor(tick)) {
      continue;
    }
    svg += fmt::format("<text class=\"tick mid\" x={:.1f} y={:.1f}>{}</text>", frame.px(tick),
                       frame.height - kBottom + 17, format_count(tick));
  }
  svg += fmt::format("<text class=\"tick end\" x={:.1f} y={:.1f}>{}</text>", frame.width - kRight,
                     frame.height - 3, escape_html(chart.x_label));
  return svg;
}

std::string curve(const Frame& frame, const LineSeries& series, const std::vector<size_t>& drawn) {
  std::string path;
  std::string dots;
  bool pen_down = false;
  size_t finite = 0;
  for (const size_t i : drawn) {
    const bool ok = std::isfinite(series.y[i]);
    if (ok) {
      ++finite;
      path += fmt::format("{}{:.1f} {:.1f}", pen_down ? 'L' : 'M', frame.px(series.x[i]),
                          frame.py(series.y[i]));
    }
    pen_down = ok;
  }
  for (size_t k = 0; k < drawn.size(); ++k) {
    const size_t i = drawn[k];
    const bool before = k > 0 && std::isfinite(series.y[drawn[k - 1]]);
    const bool after = k + 1 < drawn.size() && std::isfinite(series.y[drawn[k + 1]]);
    // A point without neighbours has no line to be seen by.
    if (std::isfinite(series.y[i]) && ((series.markers && finite <= 80) || (!before && !after))) {
      dots += fmt::format("<circle class=\"{}\" cx={:.1f} cy={:.1f} r=3 />", series.css_class,
                          frame.px(series.x[i]), frame.py(series.y[i]));
    }
  }
  return fmt::format("<path class=\"line {}\" d=\"{}\" />{}", series.css_class, path, dots);
}

// Marks on the axis where a value was not finite; near ones share a mark.
std::string not_finite_marks(const Frame& frame, const LineSeries& series) {
  std::string svg;
  double last = -1e9;
  for (size_t i = 0; i < series.x.size(); ++i) {
    const double px = frame.px(series.x[i]);
    if (!std::isfinite(series.y[i]) && px - last >= 4) {
      svg += fmt::format("<path class=bad d=\"M{:.1f} {:.1f}l-4 -7h8z\" />", px,
                         frame.height - kBottom);
      last = px;
    }
  }
  return svg;
}

nlohmann::ordered_json tooltip_data(const Frame& frame, const LineChart& chart,
                                    const std::vector<double>& xs) {
  nlohmann::ordered_json data;
  for (const double x : xs) {
    data["x"].push_back(std::round(frame.px(x) * 10) / 10);
    data["t"].push_back(fmt::format("{} {:.0f}", chart.x_label, x));
  }
  for (const LineSeries& series : chart.series) {
    nlohmann::ordered_json column = nlohmann::ordered_json::array();
    for (const double x : xs) {
      const auto at = std::lower_bound(series.x.begin(), series.x.end(), x);
      column.push_back(at == series.x.end() || *at != x
                           ? ""
                           : chart.format(series.y[static_cast<size_t>(at - series.x.begin())]));
    }
    data["s"].push_back({{"n", series.label}, {"c", series.css_class}, {"v", std::move(column)}});
  }
  return data;
}

}  // namespace

std::string render_line_chart(const LineChart& given) {
  LineChart chart = given;
  if (!chart.format) {
    chart.format = format_number;
  }
  double x_low = std::numeric_limits<double>::infinity();
  double x_high = -x_low;
  double y_low = x_low;
  double y_high = -x_low;
  size_t not_finite = 0;
  double first_bad = 0;
  for (const LineSeries& series : chart.series) {
    for (size_t i = 0; i < series.x.size(); ++i) {
      x_low = std::min(x_low, series.x[i]);
      x_high = std::max(x_high, series.x[i]);
      if (std::isfinite(series.y[i])) {
        y_low = std::min(y_low, series.y[i]);
        y_high = std::max(y_high, series.y[i]);
      } else if (&series == &chart.series.front()) {
        first_bad = not_finite == 0 ? series.x[i] : first_bad;
        ++not_finite;
      }
    }
  }
  std::string html =
      fmt::format("<figure class=chart><figcaption><b>{}</b>", escape_html(chart.title));
  if (chart.series.size() > 1) {
    for (const LineSeries& series : chart.series) {
      html += fmt::format("<span class=key><i class=\"{}\"></i>{}</span>", series.css_class,
                          escape_html(series.label));
    }
  }
  if (not_finite > 0) {
    html += fmt::format("<span class=warn>{} not finite, first at {} {:.0f}</span>", not_finite,
                        escape_html(chart.x_label), first_bad);
  }
  html += "</figcaption>";
  if (y_low > y_high) {
    return html + "<p class=none>No finite value to draw.</p></figure>";
  }

  Frame frame;
  frame.width = chart.width;
  frame.height = chart.height;
  frame.y_ticks = axis_ticks(chart.from_zero ? std::min(0.0, y_low) : y_low, y_high, 4);
  frame.x_ticks = axis_ticks(x_low, x_high, chart.width > 700 ? 10 : 5);
  frame.x_low = x_low == x_high ? x_low - 1 : x_low;
  frame.x_high = x_low == x_high ? x_high + 1 : x_high;

  std::string curves;
  std::vector<double> xs;
  for (const LineSeries& series : chart.series) {
    const std::vector<size_t> drawn =
        downsample_extremes(series.y, static_cast<size_t>(std::max(frame.width, 100.0)));
    curves += curve(frame, series, drawn);
    for (const size_t i : drawn) {
      xs.push_back(series.x[i]);
    }
  }
  std::sort(xs.begin(), xs.end());
  xs.erase(std::unique(xs.begin(), xs.end()), xs.end());
  html += fmt::format(
      "<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=img aria-label=\"{}\">{}{}{}"
      "<line class=cursor y1={:.1f} y2={:.1f} /></svg>",
      chart.width, chart.height, escape_html(chart.title), axes(frame, chart), curves,
      not_finite_marks(frame, chart.series.front()), kTop, chart.height - kBottom);
  html += fmt::format("<script type=\"application/json\">{}</script></figure>\n",
                      json_for_script(tooltip_data(frame, chart, xs)));
  return html;
}

}  // namespace lithe
