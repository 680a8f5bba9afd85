// report.html: one self-contained page (inline SVG and CSS, no network).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "report/run_data.h"

namespace lithe {

// The whole page; every part that has no data says so or is left out. All names, keys and recipe
// text are escaped.
std::string render_report(const RunData& data);

// A self-contained page; `title` is escaped, `body` is HTML.
std::string html_page(const std::string& title, const std::string& body);

// The page's style sheet and the script of its tooltips.
std::string_view report_style();
std::string_view report_script();

// The scalars of block-style YAML as (dotted path, text), in order: to show them, not to read a
// recipe. Quoted multi-line text and flow style are passed over; with `lists`, lists in flow style
// on one line are taken as their text.
std::vector<std::pair<std::string, std::string>> recipe_scalars(std::string_view yaml,
                                                                bool lists = false);

}  // namespace lithe
