#include "report/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "report/chart_scale.h"
#include "report/html_text.h"
#include "report/line_chart.h"
#include "report/memory_chart.h"
#include "report/memory_table.h"
#include "report/metric_text.h"
#include "report/units.h"

namespace lithe {
namespace {

constexpr size_t kMaxCharts = 12;
constexpr size_t kMaxRecipeFacts = 14;

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

struct Curve {
  std::vector<double> x, y;
};

// By key, in the order in which the keys first appear.
std::vector<std::pair<std::string, Curve>> curves_of(const std::vector<MetricLine>& metrics) {
  std::vector<std::pair<std::string, Curve>> curves;
  std::map<std::string, size_t> index;
  for (const MetricLine& line : metrics) {
    for (const auto& [key, value] : line.values) {
      const auto [at, fresh] = index.emplace(key, curves.size());
      if (fresh) {
        curves.emplace_back(key, Curve{});
      }
      Curve& curve = curves[at->second].second;
      const double x = static_cast<double>(line.step);
      // Two lines of one step (evaluation written apart): the later one counts.
      if (!curve.x.empty() && curve.x.back() >= x) {
        curve.y.back() = value;
        continue;
      }
      curve.x.push_back(x);
      curve.y.push_back(value);
    }
  }
  return curves;
}

// A noisy curve is drawn light, with its smoothed form on top.
void add_curve(LineChart& chart, const std::string& label, const Curve& curve) {
  if (curve.y.size() < 20) {
    chart.series.push_back({label, "main", curve.x, curve.y, true});
    return;
  }
  const double span = std::clamp(static_cast<double>(curve.y.size()) / 40, 4.0, 400.0);
  chart.series.push_back({"each step", "raw", curve.x, curve.y});
  chart.series.push_back({"smoothed", "main", curve.x, smooth(curve.y, span)});
}

std::string loss_chart(const Curve& loss, const Curve* evaluation) {
  LineChart chart;
  chart.title = "Loss";
  chart.width = 1000;
  chart.height = 300;
  add_curve(chart, "training", loss);
  if (evaluation != nullptr) {
    chart.series.push_back({"evaluation", "eval", evaluation->x, evaluation->y, true});
  }
  return render_line_chart(chart);
}

std::string training_section(const RunData& data) {
  std::string html = "<section><h2>Training</h2>\n";
  if (data.metrics.empty()) {
    return html + "<p class=none>No step was run, so there are no curves.</p></section>\n";
  }
  const auto curves = curves_of(data.metrics);
  const auto find = [&](std::string_view key) -> const Curve* {
    for (const auto& [name, curve] : curves) {
      if (name == key) {
        return &curve;
      }
    }
    return nullptr;
  };
  if (const Curve* loss = find("loss")) {
    html += loss_chart(*loss, find("eval_loss"));
  }
  // Evaluation first, then the learning rate, then the rest as they come.
  std::vector<const std::pair<std::string, Curve>*> small;
  for (const auto& entry : curves) {
    const std::string& key = entry.first;
    const bool in_loss_chart = key == "loss" || (key == "eval_loss" && find("loss") != nullptr);
    if (!in_loss_chart && key != "epoch" && key != "samples") {
      small.push_back(&entry);
    }
  }
  const auto rank = [](const std::string& key) {
    return starts_with(key, "eval_") ? 0 : key == "lr" ? 1 : 2;
  };
  std::stable_sort(small.begin(), small.end(),
                   [&](const auto* a, const auto* b) { return rank(a->first) < rank(b->first); });
  if (small.size() > kMaxCharts) {
    small.resize(kMaxCharts);
  }
  if (!small.empty()) {
    html += "<div class=grid2>\n";
    for (const auto* entry : small) {
      const auto& [key, curve] = *entry;
      const bool evaluation = starts_with(key, "eval_");
      LineChart chart;
      chart.title = metric_title(key);
      chart.from_zero = !evaluation && !is_fraction(key);
      chart.format = metric_format(key);
      if (evaluation) {
        chart.series.push_back({chart.title, "eval", curve.x, curve.y, true});
      } else if (key == "lr") {
        chart.series.push_back({chart.title, "main", curve.x, curve.y, curve.y.size() < 20});
      } else {
        add_curve(chart, chart.title, curve);
      }
      html += render_line_chart(chart);
    }
    html += "</div>\n";
  }
  return html + "</section>\n";
}

std::string tile(const std::string& label, const std::string& value, const std::string& note) {
  return fmt::format("<div class=tile><span>{}</span><b>{}</b><em>{}</em></div>\n",
                     escape_html(label), escape_html(value), escape_html(note));
}

std::string tiles(const RunData& data) {
  NamedNumbers finals = data.summary ? data.summary->metrics : NamedNumbers{};
  std::string note = "final";
  if (finals.empty() && !data.metrics.empty()) {
    note = fmt::format("step {}", data.metrics.back().step);
    for (const auto& [key, value] : data.metrics.back().values) {
      if (key == "loss" || starts_with(key, "eval_")) {
        finals.emplace_back(key, value);
      }
    }
  }
  if (finals.size() > 6) {
    finals.resize(6);
  }
  std::string html;
  for (const auto& [key, value] : finals) {
    html += tile(metric_title(key), metric_format(key)(value), note);
  }
  if (data.memory) {
    const std::string difference = peak_difference(*data.memory);
    if (data.memory->measured_peak_bytes >= 0) {
      html += tile("Peak memory", format_bytes(data.memory->measured_peak_bytes),
                   difference == "exact" ? "as predicted" : difference + " to the prediction");
    } else {
      html +=
          tile("Predicted peak", format_bytes(data.memory->predicted_peak_bytes), "not measured");
    }
  }
  if (data.summary) {
    for (const auto& [key, value] : data.summary->times) {
      if (key == "total_s") {
        html += tile("Time", format_duration(value),
                     data.metrics.empty() ? ""
                                          : fmt::format("{} step{}", data.metrics.back().step,
                                                        data.metrics.back().step == 1 ? "" : "s"));
      }
    }
  }
  return html.empty() ? "" : "<div class=tiles>\n" + html + "</div>\n";
}

std::string recipe_facts(const RunData& data) {
  constexpr std::string_view kTelling[] = {
      "kind",        "type",       "name",          "architecture",
      "precision",   "dtype",      "batch_size",    "epochs",
      "steps",       "lr",         "learning_rate", "num_hidden_layers",
      "hidden_size", "image_size", "patch_size",    "schedule",
      "optimizer",   "seed",       "accumulation",  "weight_decay"};
  std::string html;
  size_t count = 0;
  for (const auto& [path, value] : recipe_scalars(data.recipe_yaml)) {
    const std::string leaf = path.substr(path.rfind('.') + 1);
    const bool telling =
        std::find(std::begin(kTelling), std::end(kTelling), leaf) != std::end(kTelling);
    if (telling && count < kMaxRecipeFacts) {
      html += fmt::format("<li><span>{}</span> {}</li>", escape_html(path), escape_html(value));
      ++count;
    }
  }
  return html.empty() ? "" : "<ul class=recipe>" + html + "</ul>\n";
}

std::string header(const RunData& data) {
  const std::string status = data.summary ? data.summary->status : "not finished";
  std::string html =
      fmt::format("<header><div class=top><h1>{}</h1><span class=\"status {}\">{}</span></div>\n",
                  escape_html(data.name), escape_html(status), escape_html(status));
  std::vector<std::string> facts;
  if (data.summary) {
    facts.push_back(data.summary->device);
    facts.push_back(data.summary->started);
    facts.push_back(fmt::format("seed {}", data.summary->seed));
  } else if (data.memory) {
    facts.push_back(data.memory->device);
  }
  facts.erase(std::remove(facts.begin(), facts.end(), std::string()), facts.end());
  if (!facts.empty()) {
    html += fmt::format("<p class=sub>{}</p>\n",
                        escape_html(fmt::format("{}", fmt::join(facts, " · "))));
  }
  return html + recipe_facts(data) + tiles(data) + "</header>\n";
}

std::string pass_rows(const MemoryReport& report) {
  if (report.passes.empty()) {
    return "";
  }
  std::string html =
      "<section><h2>Passes</h2><div class=scroll><table><thead><tr><th>pass<th>what<th "
      "class=num>sites<th class=num>peak before<th class=num>peak after<th class=num>change"
      "<th>note<tbody>\n";
  for (const PassRow& pass : report.passes) {
    const int64_t change = pass.bytes_after - pass.bytes_before;
    html += fmt::format(
        "<tr><td><b>{}</b><td>{}<td class=num>{}<td class=num>{}<td class=num>{}<td class=\"num "
        "{}\">{}<td>{}\n",
        escape_html(pass.name), escape_html(pass.what), pass.sites, format_bytes(pass.bytes_before),
        format_bytes(pass.bytes_after),
        change < 0   ? "less"
        : change > 0 ? "more"
                     : "",
        pass.bytes_before > 0 ? fmt::format("{:+.1f} %", 100.0 * static_cast<double>(change) /
                                                             static_cast<double>(pass.bytes_before))
                              : "–",
        escape_html(pass.note));
  }
  return html + "</table></div></section>\n";
}

std::string memory_section(const RunData& data) {
  if (!data.memory) {
    return "";
  }
  return "<section><h2>Memory</h2>\n" + render_peak_bars(*data.memory) +
         render_memory_timeline(*data.memory) + render_largest_values(*data.memory) +
         "</section>\n" + pass_rows(*data.memory);
}

std::string details(const RunData& data) {
  std::string html = "<section><h2>Record</h2>\n";
  if (data.summary) {
    std::string list;
    for (const auto& [key, seconds] : data.summary->times) {
      const std::string label = key.size() > 2 && key.substr(key.size() - 2) == "_s"
                                    ? key.substr(0, key.size() - 2) + " time"
                                    : key;
      list += fmt::format("<dt>{}<dd>{}\n", escape_html(label), format_duration(seconds));
    }
    for (const auto& [key, version] : data.summary->versions) {
      list += fmt::format("<dt>{}<dd>{}\n", escape_html(key), escape_html(version));
    }
    if (!list.empty()) {
      html += "<details><summary>Times and versions</summary><dl>\n" + list + "</dl></details>\n";
    }
  }
  if (!data.recipe_yaml.empty()) {
    html += fmt::format("<details><summary>Resolved recipe</summary><pre>{}</pre></details>\n",
                        escape_html(data.recipe_yaml));
  }
  return html + "</section>\n";
}

}  // namespace

std::vector<std::pair<std::string, std::string>> recipe_scalars(std::string_view yaml, bool lists) {
  std::vector<std::pair<std::string, std::string>> scalars;
  std::vector<std::pair<size_t, std::string>> parents;  // indentation and key
  while (!yaml.empty()) {
    const size_t end = std::min(yaml.find('\n'), yaml.size());
    std::string_view line = yaml.substr(0, end);
    yaml.remove_prefix(std::min(end + 1, yaml.size()));
    const size_t indent = line.find_first_not_of(' ');
    if (indent == std::string_view::npos || line[indent] == '#' || line[indent] == '-') {
      continue;
    }
    const size_t comment = line.find(" #");
    line = line.substr(0, comment);
    const size_t colon = line.find(':', indent);
    if (colon == std::string_view::npos) {
      continue;
    }
    while (!parents.empty() && parents.back().first >= indent) {
      parents.pop_back();
    }
    const std::string key(line.substr(indent, colon - indent));
    const size_t begin = line.find_first_not_of(' ', colon + 1);
    if (begin == std::string_view::npos) {
      parents.emplace_back(indent, key);
      continue;
    }
    std::string_view value = line.substr(begin);
    value = value.substr(0, value.find_last_not_of(" \r") + 1);
    if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') &&
        value.back() == value.front()) {
      value = value.substr(1, value.size() - 2);
    }
    if (value.empty() || (value.front() == '[' && !lists) || value.front() == '{' ||
        value.front() == '|' || value.front() == '>') {
      continue;
    }
    std::string path;
    for (const auto& parent : parents) {
      path += parent.second + ".";
    }
    scalars.emplace_back(path + key, std::string(value));
  }
  return scalars;
}

std::string html_page(const std::string& title, const std::string& body) {
  return fmt::format(
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n"
      "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n"
      "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src "
      "'unsafe-inline'; script-src 'unsafe-inline'\">\n"
      "<title>{} · Lithe</title><style>{}</style></head><body><main>\n{}</main><script>{}</script>"
      "</body></html>\n",
      escape_html(title), report_style(), body, report_script());
}

std::string render_report(const RunData& data) {
  return html_page(data.name,
                   header(data) + training_section(data) + memory_section(data) + details(data));
}

}  // namespace lithe
