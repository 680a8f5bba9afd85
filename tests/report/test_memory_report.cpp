#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "report/memory_report.h"
#include "report/memory_table.h"
#include "report/units.h"
#include "sample_report.h"
#include "tensor/core/error.h"

using namespace lithe;

namespace {

using Json = nlohmann::ordered_json;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("class names are the JSON keys of the design and read back") {
  const std::vector<std::string> expected = {
      "weights",   "gradients", "optimizer", "saved_activations", "temporaries",
      "workspace", "kv_cache",  "adapters",  "communication",     "context"};
  REQUIRE(expected.size() == kMemoryClassCount);
  for (int c = 0; c < kMemoryClassCount; ++c) {
    const auto cls = static_cast<MemoryClass>(c);
    CHECK(memory_class_name(cls) == expected[static_cast<size_t>(c)]);
    CHECK(memory_class_from_name(memory_class_name(cls)) == cls);
  }
  CHECK(!memory_class_from_name("weight"));
}

TEST_CASE("memory.json has every key and survives the way there and back") {
  const MemoryReport report = sample_report();
  const Json json = Json::parse(dump_readable(to_json(report)));
  CHECK(json["predicted_peak_bytes"] == 19 << 20);
  CHECK(json["measured_peak_bytes"] == 19 << 20);
  CHECK(json["memory"].size() == kMemoryClassCount);
  CHECK(json["memory"]["optimizer"] == 8 << 20);
  CHECK(json["memory"]["kv_cache"] == 0);
  REQUIRE(json["values"].size() == 5);
  CHECK(json["values"][4] == Json{{"name", "b.weight.grad"},
                                  {"bytes", 4 << 20},
                                  {"class", "gradients"},
                                  {"offset", 3 << 20},
                                  {"first_use", 2},
                                  {"last_use", 3}});
  CHECK(json["values"][0]["first_use"] == -1);
  CHECK(json["values"][0]["last_use"] == 4);
  CHECK(!json["timeline"].contains("kv_cache"));
  const MemoryReport back = memory_report_from_json(json, "test");
  CHECK(to_json(back) == to_json(report));
  CHECK(back.timeline == report.timeline);
  CHECK(back.peak_by_class == report.peak_by_class);
}

TEST_CASE("an unmeasured peak is null, and stays unknown") {
  MemoryReport report = sample_report();
  report.measured_peak_bytes = -1;
  const Json json = to_json(report);
  CHECK(json["measured_peak_bytes"].is_null());
  CHECK(memory_report_from_json(json, "test").measured_peak_bytes == -1);
}

TEST_CASE("damaged memory.json is refused with its name") {
  Json json = to_json(sample_report());
  SUBCASE("missing key") { json.erase("arena_bytes"); }
  SUBCASE("wrong type") { json["predicted_peak_bytes"] = "much"; }
  SUBCASE("unknown class") { json["values"][0]["class"] = "wights"; }
  SUBCASE("short column") { json["timeline"]["weights"] = {1, 2}; }
  try {
    memory_report_from_json(json, "runs/x/memory.json");
    FAIL("accepted");
  } catch (const FileError& error) {
    CHECK(has(error.what(), "[runs/x/memory.json]"));
  }
}

TEST_CASE("names that are no UTF-8 do not break the files") {
  MemoryReport report = sample_report();
  report.values[0].name = "bad\xff";
  const Json json = Json::parse(dump_readable(to_json(report)));
  CHECK(json["values"][0]["name"] == "bad\xEF\xBF\xBD");
}

TEST_CASE("the largest values are those alive at the peak, by size, then by name") {
  MemoryReport report = sample_report();
  const auto largest = largest_at_peak(report, 10);
  REQUIRE(largest.size() == 4);  // b.out died before the peak
  CHECK(largest[0]->name == "b.adamw");
  CHECK(largest[1]->name == "b.weight");
  CHECK(largest[2]->name == "b.weight.grad");
  CHECK(largest[3]->name == "a.out");
  CHECK(largest_at_peak(report, 2).size() == 2);
}

TEST_CASE("the table is aligned and adds up") {
  MemoryReport report = sample_report();
  report.predicted_peak_bytes += 1 << 20;  // 20 MiB, of which 18 MiB are live
  const std::string table = memory_table(report);
  CHECK(has(table, "  optimizer            8.00 MiB   40.0 %\n"));
  CHECK(has(table, "  alignment and gaps   2.00 MiB   10.0 %\n"));
  CHECK(has(table, "  predicted peak      20.00 MiB  100.0 %\n"));
  CHECK(has(table, "  measured peak       19.00 MiB  -5.00 %\n"));
  CHECK(has(table, "position 2 of 4, backward/b"));
  CHECK(has(table, "always  b.adamw"));
  CHECK(has(table, "  freeze      6    38.00 MiB   19.00 MiB  -50.0 %  1 of 2 blocks (block 0)\n"));
  CHECK(!has(table, "kv_cache"));
  CHECK(!has(table, "b.out"));
}

TEST_CASE("an empty plan prints, and a name cannot drive the terminal") {
  CHECK(has(memory_table(MemoryReport{}), "predicted peak  0.00 MiB"));
  MemoryReport report = sample_report();
  report.values[1].name = "x\x1b[2Jy";
  CHECK(!has(memory_table(report), "\x1b"));
}

TEST_CASE("units") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1536) == "1.50 KiB");
  CHECK(format_bytes((1 << 20) - 1) == "1.00 MiB");
  CHECK(format_bytes(int64_t{7} << 30) == "7.00 GiB");
  CHECK(format_bytes(-2048) == "-2.00 KiB");
  CHECK(format_duration(0.25) == "0.25s");
  CHECK(format_duration(9.96) == "10s");
  CHECK(format_duration(59.6) == "1m00s");
  CHECK(format_duration(200) == "3m20s");
  CHECK(format_duration(3599.7) == "1h00m");
  CHECK(format_duration(3720) == "1h02m");
  CHECK(format_duration(86400 * 2 + 3 * 3600) == "2d03h");
  CHECK(format_duration(-1) == "?");
  CHECK(format_duration(1e300) == "?");
  CHECK(format_number(3e-5) == "3e-5");
  CHECK(format_number(0.43125) == "0.4313");
  CHECK(format_number(60000) == "60000");
  CHECK(format_number(1e-12) == "1e-12");
  CHECK(format_number(2e10) == "2e10");
  CHECK(format_count(950) == "950");
  CHECK(format_count(12500) == "12.5k");
  CHECK(format_count(999999) == "1M");
  CHECK(format_share(1, 0) == "–");
}

}  // namespace
