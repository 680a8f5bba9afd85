#include <doctest/doctest.h>

#include <cmath>

#include "report/html.h"
#include "report/html_text.h"
#include "report/memory_chart.h"
#include "sample_report.h"

using namespace lithe;

namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++n;
  }
  return n;
}

RunData sample_run(int64_t steps) {
  RunData data;
  data.name = "vit";
  data.recipe_yaml = "model:\n  kind: vit\nseed: 17\n";
  data.memory = sample_report();
  for (int64_t step = 1; step <= steps; ++step) {
    data.metrics.push_back(
        {step, {{"loss", 3.0 / static_cast<double>(step)}, {"lr", 1e-3}, {"eval_accuracy", 0.5}}});
  }
  return data;
}

TEST_CASE("text is escaped, broken UTF-8 and control characters are replaced") {
  CHECK(escape_html("<a href=\"x\" id='y'>&") ==
        "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;");
  CHECK(escape_html("µ–😀") == "µ–😀");
  CHECK(escape_html("a\xff\x01z") == "a\xEF\xBF\xBD\xEF\xBF\xBDz");
  CHECK(escape_html("\xc0\xbcscript") == "\xEF\xBF\xBD\xEF\xBF\xBDscript");  // overlong "<"
  CHECK(escape_html("\xe2\x82") == "\xEF\xBF\xBD\xEF\xBF\xBD");              // cut
  CHECK(json_for_script({{"t", "</script><!--&"}}) ==
        "{\"t\":\"\\u003c/script\\u003e\\u003c!--\\u0026\"}");
}

TEST_CASE("hostile names stay text everywhere") {
  const std::string evil = "</script></style><img src=x onerror=alert(1)>\"'";
  RunData data = sample_run(30);
  data.name = evil;
  data.recipe_yaml = "model:\n  kind: " + evil + "\n";
  data.memory->device = evil;
  data.memory->order.assign(4, evil + "/x");
  for (PlannedValue& value : data.memory->values) {
    value.name = evil;
  }
  data.memory->passes[0] = {evil, evil, 1, 2, 1, evil};
  for (MetricLine& line : data.metrics) {
    line.values.emplace_back(evil, 1.0);
    line.values.emplace_back("eval_" + evil, 1.0);
  }
  RunSummary summary;
  summary.status = summary.device = summary.started = evil;
  summary.metrics = {{evil, 1}};
  summary.times = {{evil, 1}};
  summary.versions = {{evil, evil}};
  data.summary = summary;
  const std::string page = render_report(data);
  CHECK(!has(page, "<img"));
  CHECK(has(page, "&lt;img src=x"));
  CHECK(count(page, "</style>") == 1);
  CHECK(count(page, "<script") == count(page, "</script>"));
}

TEST_CASE("the page is self-contained and has its parts") {
  const std::string page = render_report(sample_run(100));
  CHECK(!has(page, "http://"));
  CHECK(!has(page, "https://"));
  CHECK(has(page, "default-src 'none'"));
  CHECK(has(page, "prefers-color-scheme:dark"));
  for (const char* part : {"<b>Loss</b>", "smoothed", "Evaluation accuracy", "Learning rate",
                           "Live bytes over one step", "peak 18.00 MiB", "19.00 MiB",
                           "equal to the prediction", "b.weight.grad", "freeze", "-50.0 %",
                           "<details>", "model.kind", "seed: 17", ">backward</text>"}) {
    CAPTURE(part);
    CHECK(has(page, part));
  }
  for (int c = 0; c < kMemoryClassCount; ++c) {
    const std::string name(memory_class_name(static_cast<MemoryClass>(c)));
    CHECK(has(std::string(report_style()), "--" + name + ":#"));
    CHECK(has(std::string(report_style()), ".c-" + name + "{"));
  }
}

TEST_CASE("no metrics, one point, NaN losses, no data at all") {
  CHECK(has(render_report(sample_run(0)), "No step was run"));
  const std::string one = render_report(sample_run(1));
  CHECK(has(one, "<circle class=\"main\""));
  CHECK(!has(one, "nan"));
  RunData data = sample_run(40);
  for (size_t i = 10; i < 15; ++i) {
    data.metrics[i].values[0].second = NAN;
  }
  const std::string some = render_report(data);
  CHECK(has(some, "5 not finite, first at step 11"));
  CHECK(has(some, "class=bad"));
  CHECK(!has(some, "nan"));
  CHECK(!has(some, "inf"));
  for (MetricLine& line : data.metrics) {
    line.values[0].second = NAN;
  }
  CHECK(has(render_report(data), "No finite value to draw"));
  const std::string empty = render_report(RunData{});
  CHECK(has(empty, "No step was run"));
  CHECK(!has(empty, "Live bytes"));
}

TEST_CASE("a long run and a long plan give a page of bounded size that keeps the peak") {
  RunData data = sample_run(30000);
  MemoryReport& report = *data.memory;
  report.timeline.assign(40000, MemoryByClass{1 << 20});
  report.order.assign(40000, "n");
  report.order[23457] = "the_peak_node";
  report.timeline[23457][static_cast<size_t>(MemoryClass::workspace)] = 5 << 20;
  report.peak_position = 23457;
  report.peak_by_class = report.timeline[23457];
  const std::string page = render_report(data);
  CHECK(page.size() < 600000);
  CHECK(has(page, "23457: the_peak_node"));
  CHECK(has(page, "peak 6.00 MiB"));
}

TEST_CASE("phases: prefixes become stretches, interleaved ones merge") {
  const auto phases = plan_phases({"forward/a", "forward/b", "backward/b", "update/b", "backward/a",
                                   "update/a", "metrics/loss"});
  REQUIRE(phases.size() == 3);
  CHECK(phases[0].name == "forward");
  CHECK(phases[0].last == 1);
  CHECK(phases[1].name == "backward + update");
  CHECK(phases[1].first == 2);
  CHECK(phases[1].last == 5);
  CHECK(phases[2].name == "metrics");
  CHECK(plan_phases({"a", "b", "c"}).empty());
  CHECK(plan_phases({"vit/a", "vit/b"}).empty());
  CHECK(plan_phases({}).empty());
}

TEST_CASE("recipe scalars for the summary line") {
  const auto scalars = recipe_scalars(
      "model:\n  kind: vit   # a comment\n  sizes: [1, 2]\n  block:\n    depth: 12\n"
      "passes:\n  - freeze: x\nname: \"a b\"\nempty:\nseed: 3");
  REQUIRE(scalars.size() == 4);
  CHECK(scalars[0] == std::pair<std::string, std::string>{"model.kind", "vit"});
  CHECK(scalars[1] == std::pair<std::string, std::string>{"model.block.depth", "12"});
  CHECK(scalars[2] == std::pair<std::string, std::string>{"name", "a b"});
  CHECK(scalars[3] == std::pair<std::string, std::string>{"seed", "3"});
}

}  // namespace
