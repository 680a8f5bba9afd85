// Line charts as inline SVG with the data their tooltip shows.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace lithe {

struct LineSeries {
  std::string label;
  std::string css_class;  // colour and weight, from the page's style
  std::vector<double> x;  // ascending
  std::vector<double> y;  // what is not finite breaks the line
  bool markers = false;   // a dot at each point, for sparse curves
};

struct LineChart {
  std::string title;
  std::string x_label = "step";
  std::vector<LineSeries> series;
  double width = 480;  // units of the view box; the page scales it
  double height = 210;
  bool from_zero = false;
  std::function<std::string(double)> format;  // of ticks and tooltips; format_number when empty
};

// A <figure>; a note instead of axes when no point is finite. Points that are not finite are marked
// on the axis. Draws at most one point a unit of width and keeps each stretch's extremes.
std::string render_line_chart(const LineChart& chart);

}  // namespace lithe
