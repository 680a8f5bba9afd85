#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cmath>

#include <fmt/format.h>

#include "report/chart_scale.h"
#include "report/comparison_html.h"
#include "report/comparison_table.h"
#include "report/memory_comparison.h"
#include "report/run_folder.h"
#include "report/text_table.h"
#include "sample_report.h"
#include "temporary_folder.h"
#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

using namespace lithe;

namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

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

// The sample's step with other values: a.out is gone, b.out lives until backward, a workspace is
// new. Its peak is 20 MiB live, 21 MiB predicted.
MemoryReport other_report() {
  MemoryReport report = sample_report();
  report.values.erase(report.values.begin() + 2);
  report.values[2].last = 2;
  report.values[2].cls = MemoryClass::saved_activations;
  report.values.push_back({"scratch", 3 * kMiB, 0, MemoryClass::workspace, 0, 3});
  MemoryByClass& live = report.timeline[2];
  live[static_cast<size_t>(MemoryClass::saved_activations)] = 1 * kMiB;
  live[static_cast<size_t>(MemoryClass::workspace)] = 3 * kMiB;
  report.peak_by_class = live;
  report.arena_bytes = 9 * kMiB;
  report.predicted_peak_bytes = 21 * kMiB;
  report.measured_peak_bytes = -1;
  report.context_bytes = 0;
  return report;
}

// A finished run with the sample's memory, and a recipe.
std::vector<ComparedRun> sample_runs() {
  ComparedRun run;
  run.summary.name = "full";
  run.summary.status = "finished";
  run.summary.device = "cpu, 2 threads";
  run.summary.metrics = {{"loss", 0.25}, {"eval_accuracy", 0.875}};
  run.summary.times = {{"total_s", 12.0}, {"step_ms_median", 3.5}};
  run.memory = sample_report();
  run.planned_only = false;
  run.recipe_yaml = "name: full\ntrain:\n  steps: 3\n  batch_size: 8\n";
  ComparedRun planned;
  planned.summary.name = "small";
  planned.summary.status = "dry run";
  planned.summary.device = "cpu";
  planned.memory = other_report();
  planned.recipe_yaml =
      "name: small\ntrain:\n  steps: 3\n  batch_size: 4\nseed: 1\nlist: [a, \"b\"]\nnone: []\n";
  return {run, planned};
}

// The line of a table that starts with `label`, one blank between columns.
std::string line_of(const std::string& text, const std::string& label) {
  const size_t at = text.find("\n  " + label);
  REQUIRE(at != std::string::npos);
  std::string line;
  for (const char c : text.substr(at + 3, text.find('\n', at + 1) - at - 3)) {
    if (c != ' ' || line.back() != ' ') {
      line += c;
    }
  }
  return line;
}

TEST_CASE("values that differ: what is absent, what is not alive, largest change first") {
  const MemoryReport first = sample_report();
  const MemoryReport other = other_report();
  const std::vector<ValueDifference> values = values_that_differ(first, other);
  REQUIRE(values.size() == 3);
  CHECK(values[0].name == "scratch");
  CHECK(!values[0].first_bytes);
  CHECK(values[0].bytes == 3 * kMiB);
  CHECK(values[0].cls == MemoryClass::workspace);
  CHECK(values[1].name == "a.out");
  CHECK(values[1].first_bytes == 2 * kMiB);
  CHECK(!values[1].bytes);
  CHECK(values[1].change() == -2 * kMiB);
  CHECK(values[1].first_class == MemoryClass::saved_activations);
  CHECK(values[2].name == "b.out");
  CHECK(values[2].first_bytes == 0);  // it exists, and does not live at the peak
  CHECK(values[2].bytes == 1 * kMiB);
  CHECK(values[2].first_class == MemoryClass::temporaries);
  CHECK(values[2].cls == MemoryClass::saved_activations);
  // Every byte between the two peaks is in a value.
  int64_t sum = 0;
  for (const ValueDifference& value : values) {
    sum += value.change();
  }
  CHECK(sum == other.live_at_peak() - first.live_at_peak());
  CHECK(values_that_differ(first, first).empty());
  const std::vector<ValueDifference> back = values_that_differ(other, first);
  REQUIRE(back.size() == 3);
  CHECK(back[0].change() == -3 * kMiB);
}

TEST_CASE("values of one kind in several layers are one by layer") {
  MemoryReport first;
  MemoryReport other;
  const auto add = [](MemoryReport& report, const std::string& name, int64_t bytes) {
    report.values.push_back({name, bytes, 0, MemoryClass::saved_activations, 0, 0});
  };
  add(first, "layer.0.x/gelu", 10);
  add(first, "layer.1.x/gelu", 10);
  add(first, "layer.2b/gelu", 7);
  add(first, "12", 1);
  for (const char* name : {"layer.0.x/gelu", "layer.1.x/gelu", "layer.11.x/gelu"}) {
    add(other, name, 4);
  }
  add(other, "", 2);
  const std::vector<ValueDifference> values = values_that_differ(first, other, true);
  REQUIRE(values.size() == 4);
  CHECK(values[0].name == "layer.*.x/gelu");
  CHECK(values[0].count == 3);
  CHECK(values[0].first_bytes == 20);
  CHECK(values[0].bytes == 12);
  CHECK(values[1].name == "layer.2b/gelu");
  CHECK(values[1].count == 1);
  CHECK(values[2].name.empty());
  CHECK(values[3].name == "*");
  CHECK(values_that_differ(first, other).size() == 6);
}

TEST_CASE("names become unique and short") {
  std::vector<ComparedRun> runs(6);
  for (size_t i = 0; const char* name : {"vit", "vit", "vit (2)", "vit"}) {
    runs[i++].summary.name = name;
  }
  runs[4].summary.name = runs[5].summary.name = std::string(100, 'x') + "µ";
  make_names_unique(runs);
  CHECK(runs[0].summary.name == "vit");
  CHECK(runs[1].summary.name == "vit (2)");
  CHECK(runs[2].summary.name == "vit (2) (2)");
  CHECK(runs[3].summary.name == "vit (3)");
  CHECK(runs[4].summary.name == std::string(39, 'x') + "…");
  CHECK(runs[5].summary.name == std::string(39, 'x') + "… (2)");
  CHECK(shortened("µµµµ", 4) == "µµµµ");
  CHECK(shortened("µµµµ", 3) == "µµ…");
  CHECK(shortened("", 3).empty());
}

TEST_CASE("settings that differ leave out names, equal keys and runs without a recipe") {
  std::vector<ComparedRun> runs = sample_runs();
  runs.insert(runs.begin() + 1, ComparedRun{});  // without a recipe
  const std::vector<SettingDifference> settings = settings_that_differ(runs);
  REQUIRE(settings.size() == 3);
  CHECK(settings[2].values[2] == "[a, \"b\"]");
  CHECK(settings[0].key == "train.batch_size");
  CHECK(settings[0].values[0] == "8");
  CHECK(!settings[0].values[1]);
  CHECK(settings[0].values[2] == "4");
  CHECK(settings[1].key == "seed");
  CHECK(!settings[1].values[0]);
  CHECK(settings[1].values[2] == "1");
}

TEST_CASE("the JSON has the bytes of both, differences to the first, null where nothing is known") {
  const nlohmann::ordered_json json =
      nlohmann::ordered_json::parse(comparison_json(sample_runs()).dump());
  const auto& first = json["runs"][0];
  const auto& other = json["runs"][1];
  CHECK(first["name"] == "full");
  CHECK(first["planned_only"] == false);
  CHECK(first["difference_bytes"] == 0);
  CHECK(first["ratio"] == 1.0);
  CHECK(first["measured_peak_bytes"] == 19 * kMiB);
  CHECK(first["metrics"]["eval_accuracy"] == 0.875);
  CHECK(first["times"]["step_ms_median"] == 3.5);
  CHECK(first["passes"][0]["what"] == "1 of 2 blocks");
  CHECK(other["planned_only"] == true);
  CHECK(other["predicted_peak_bytes"] == 21 * kMiB);
  CHECK(other["measured_peak_bytes"].is_null());
  CHECK(other["difference_bytes"] == 2 * kMiB);
  CHECK(other["ratio"].get<double>() == doctest::Approx(21.0 / 19));
  CHECK(other["memory"].size() == kMemoryClassCount);
  CHECK(other["memory"]["workspace"] == 3 * kMiB);
  CHECK(other["metrics"].empty());
  const auto& values = json["values_that_differ"];
  REQUIRE(values.size() == 1);
  CHECK(values[0]["name"] == "small");
  CHECK(values[0]["first"] == "full");
  CHECK(values[0]["count"] == 3);
  CHECK(values[0]["largest"][1]["name"] == "a.out");
  CHECK(values[0]["largest"][1]["difference_bytes"] == -2 * kMiB);
  CHECK(values[0]["largest"][1]["bytes"].is_null());
  CHECK(values[0]["largest"][1]["class"].is_null());
  CHECK(values[0]["largest"][2]["first_bytes"] == 0);
  CHECK(json["settings_that_differ"][0]["key"] == "train.batch_size");
  CHECK(json["settings_that_differ"][1]["values"][0].is_null());
  CHECK(comparison_json(std::vector<ComparedRun>(2))["runs"][1]["ratio"].is_null());
}

TEST_CASE("the table marks what is only planned and shows each number in its column") {
  const std::string text = comparison_table(sample_runs());
  CHECK(line_of(text, "from") == "from finished run planned");
  CHECK(line_of(text, "weights") == "weights 4.00 MiB 4.00 MiB");
  CHECK(line_of(text, "workspace") == "workspace 0.00 MiB 3.00 MiB");
  CHECK(line_of(text, "alignment") == "alignment and gaps 1.00 MiB 1.00 MiB");
  CHECK(line_of(text, "predicted") == "predicted peak 19.00 MiB 21.00 MiB");
  CHECK(line_of(text, "difference") == "difference – +2.00 MiB");
  CHECK(line_of(text, "ratio") == "ratio 1.000× 1.105×");
  CHECK(line_of(text, "measured peak") == "measured peak 19.00 MiB planned only");
  CHECK(line_of(text, "measured to") == "measured to predicted exact –");
  CHECK(line_of(text, "eval_accuracy") == "eval_accuracy 87.5 % –");
  CHECK(line_of(text, "step_ms_median") == "step_ms_median 3.5 ms –");
  CHECK(line_of(text, "train.batch_size") == "train.batch_size 8 4");
  CHECK(line_of(text, "full") == "full freeze 1 of 2 blocks");
  CHECK(has(text, "Values of small against full, each at its own peak: +2.00 MiB in all"));
  CHECK(
      has(text, "+1.00 MiB  not alive  1.00 MiB  temporaries → saved activations       1  b.out"));
  CHECK(!has(text, "kv cache"));
  CHECK(!has(text, "context"));
  std::vector<ComparedRun> runs = sample_runs();
  runs[0].memory.context_bytes = 5 * kMiB;
  runs[1].summary.name = "a\x1b[31mb";
  const std::string with_context = comparison_table(runs);
  CHECK(has(line_of(with_context, "context"), "5.00 MiB"));
  CHECK(!has(with_context, "\x1b"));
}

TEST_CASE("a stretch's largest value stays, however the step is stretched") {
  const std::vector<int64_t> totals = {1, 9, 2, 3, 8, 4};
  CHECK(stretch_maxima(totals, 0, 6, 3) == std::vector<int64_t>{9, 3, 8});
  CHECK(stretch_maxima(totals, 1, 3, 4) == std::vector<int64_t>{9, 9, 2, 2});
  CHECK(stretch_maxima(totals, 2, 3, 2) == std::vector<int64_t>{2, 2});
  CHECK(stretch_maxima(totals, 6, 6, 2) == std::vector<int64_t>{0, 0});
  CHECK(stretch_maxima(totals, 0, 6, 4) == std::vector<int64_t>{1, 9, 3, 8});
}

TEST_CASE("timelines: one line a run, phase by phase where the steps have the same phases") {
  std::vector<ComparedRun> runs = sample_runs();
  std::string html = render_timelines(runs);
  CHECK(count(html, "<path class=\"line s") == 2);
  CHECK(has(html, "class=\"line s0 d0\""));
  CHECK(has(html, "class=\"line s1 d0\""));
  CHECK(has(html, "forward from 0 %, backward from 33 %, update from 67 %"));
  // Forward is the first third of 600 points, backward's one position, the peak, the second: from
  // point 200 on, of 58 to 986 in x, where 20 MiB end the axis of 340 units with 12 and 34 around.
  CHECK(has(html, fmt::format("L{:.1f} {:.1f}", 58 + 928 * 200.0 / 599, 306 - 294 * 18.0 / 20)));
  CHECK(has(html, "\"18\""));
  runs[1].memory.order = {"a", "b", "c", "d"};
  html = render_timelines(runs);
  CHECK(has(html, "each is drawn to the whole width"));
  runs[0].memory.timeline.clear();
  CHECK(count(render_timelines(runs), "<path class=\"line s") == 1);
  runs[1].memory.timeline.clear();
  CHECK(render_timelines(runs).empty());
}

TEST_CASE("the page has bars on one scale and all parts, and hostile names stay text") {
  const std::string page = render_comparison(sample_runs());
  CHECK(!has(page, "http://"));
  CHECK(!has(page, "https://"));
  CHECK(has(page, "default-src 'none'"));
  CHECK(has(page, "small against full"));
  CHECK(has(page, "1 of 2 are planned only"));
  // 8 MiB of optimizer state of a scale that ends at 21 MiB.
  CHECK(count(page, "<i class=c-optimizer style=\"width:38.095%\"") == 2);
  CHECK(has(page, "<i class=c-workspace style=\"width:14.286%\""));
  for (const char* part : {"measured 19.00 MiB", "planned, not measured", "1.105× of the first",
                           "temporaries → saved activations", "not alive", "absent",
                           "Settings that differ", "Value by value (3)", "87.5 %"}) {
    CAPTURE(part);
    CHECK(has(page, part));
  }

  const std::string evil = "</script></style><img src=x onerror=alert(1)>\"'";
  std::vector<ComparedRun> runs = sample_runs();
  for (ComparedRun& run : runs) {
    run.summary.name = run.summary.status = run.summary.device = evil;
    run.summary.metrics.emplace_back(evil, 1);
    run.summary.times.emplace_back(evil, NAN);
    run.memory.passes = {{evil, evil, 1, 2, 1, evil}};
    run.memory.order.assign(4, evil + "/x");
    for (PlannedValue& value : run.memory.values) {
      value.name += evil;
    }
  }
  runs[0].recipe_yaml = evil + ": 1\n";
  runs[1].recipe_yaml = evil + ": " + evil + "\n";
  const std::string hostile = render_comparison(runs);
  CHECK(!has(hostile, "<img"));
  CHECK(has(hostile, "&lt;img src=x"));
  CHECK(count(hostile, "</style>") == 1);
  CHECK(count(hostile, "<script") == count(hostile, "</script>"));
}

TEST_CASE("runs without values, timeline, metrics or recipe are compared too") {
  const std::vector<ComparedRun> runs(3);
  CHECK(has(comparison_table(runs), "none differs"));
  CHECK(has(render_comparison(runs), "None."));
}

TEST_CASE("a run folder is read; what is missing, damaged or too large is named") {
  TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "vit";
  const auto message = [&] {
    try {
      (void)compared_run(path);
    } catch (const FileError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(has(message(), "is not a folder"));
  {
    RunFolder run(path, RunMode::kNew, false);
    CHECK(has(message(), "has no summary.json"));
    RunSummary summary;
    summary.name = "another name";
    summary.status = "finished";
    summary.metrics = {{"loss", 0.5}};
    run.write_summary(summary, nullptr);
    CHECK(has(message(), "has no memory.json"));
    run.write_memory(sample_report());
    run.write_recipe("seed: 3\n");
  }
  const ComparedRun run = compared_run(path / "");
  CHECK(run.summary.name == "vit");
  CHECK(!run.planned_only);
  CHECK(run.memory.predicted_peak_bytes == 19 * kMiB);
  CHECK(run.summary.metrics == NamedNumbers{{"loss", 0.5}});
  CHECK(run.recipe_yaml == "seed: 3\n");

  const std::string good = read_whole_file(path / "memory.json");
  const auto damaged = [&](const std::string& part, const std::string& with) {
    std::string text = good;
    REQUIRE(has(text, part));
    text.replace(text.find(part), part.size(), with);
    write_file_atomically(path / "memory.json", text);
    return message();
  };
  CHECK(has(damaged("\"bytes\":4194304", "\"bytes\":-1"), "memory.json"));
  CHECK(has(damaged("\"bytes\":4194304", "\"bytes\":1e300"), "whole number"));
  CHECK(has(damaged("\"bytes\":4194304", "\"bytes\":4194304.5"), "whole number"));
  CHECK(has(damaged("\"bytes\":4194304", "\"bytes\":9223372036854775808"), "whole number"));
  CHECK(has(damaged("\"bytes\":4194304", "\"bytes\":576460752303423488"), "its values"));
  CHECK(has(damaged("\"bytes\":4194304", "\"bytes\":\"4\""), "whole number"));
  CHECK(has(damaged("\"first_use\":-1", "\"first_use\":-2147483649"), "whole number"));
  CHECK(has(damaged("\"peak_position\": 2", "\"peak_position\": 1e9"), "whole number"));
  CHECK(has(damaged("\"class\":\"weights\"", "\"class\":\"weight\""), "is unknown"));
  CHECK(has(damaged("\"forward/a\",", ""), "positions"));
  CHECK(has(damaged("b.adamw", "b.\xff"), "damaged"));
  CHECK(has(damaged("{", std::string(100000, '[')), "damaged"));
  CHECK(has(damaged("{", "[{"), "damaged"));
  // A peak beyond the step is no place in memory: charts and tables put it at the end.
  CHECK(damaged("\"peak_position\": 2", "\"peak_position\": 2000000000") == "no error");
  const std::vector<ComparedRun> odd = {compared_run(path), compared_run(path)};
  CHECK(has(render_comparison(odd), "</html>"));
  write_file_atomically(path / "memory.json", good);

  write_file_atomically(path / "summary.json", "{\"name\": 3}");
  CHECK(has(message(), "is no run summary"));
  write_file_atomically(path / "summary.json", std::string(1 << 17, ' '));
  CHECK(has(message(), "at most 65536"));
  std::filesystem::remove(path / "summary.json");
  REQUIRE(::mkfifo((path / "summary.json").c_str(), 0600) == 0);
  CHECK(has(message(), "no regular file"));
}

}  // namespace
