#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "report/profile.h"
#include "tensor/core/error.h"

using namespace lithe;

namespace {

// As many rows as indices, as many columns as the table has.
void infer_rows(InferContext& c) { c.output(c.dtype(0), {c.shape(1)[0], c.shape(0)[1]}); }
void infer_same(InferContext& c) { c.output(c.dtype(0), c.shape(0)); }
void infer_flat(InferContext& c) { c.output(c.dtype(0), {c.shape(0).numel()}); }
double hundred_flops(const Graph&, NodeId) { return 100; }

const OpDef kLookup = {.name = "embedding", .infer = infer_rows};
const OpDef kSquare = {.name = "square", .infer = infer_same, .flops = hundred_flops};
const OpDef kFlatten = {.name = "flatten", .infer = infer_flat, .aliases = {{{Alias::view, 0, 0}}}};
const OpDef kUpdate = {.name = "step",
                       .infer = infer_same,
                       .aliases = {{{Alias::mutate, 0, 0}}},
                       .has_effect = true,
                       .grouped = true};

// table [50, 4] is looked up at ids [3]; the rows are multiplied by themselves and flattened; two
// weights [2, 4] are updated in one group.
struct Sample {
  SlotTable slots;
  Graph graph{slots};
  Plan plan;

  Sample() {
    const ValueId table =
        graph.leaf(slots.add({.name = "table", .dtype = DType::f32, .shape = {50, 4}}));
    const ValueId ids = graph.input("ids", DType::i64, {3});
    graph.set_scope(graph.add_scope("bert.layer.0"));
    const ValueId rows = graph.emit(kLookup, {table, ids});
    const ValueId square = graph.emit(kSquare, {rows, rows});
    graph.set_phase(Phase::backward);
    graph.mark_output(graph.emit(kFlatten, {square}), "flat");
    graph.set_phase(Phase::update);
    for (const char* name : {"a", "b"}) {
      graph.emit(kUpdate,
                 {graph.leaf(slots.add({.name = name, .dtype = DType::f32, .shape = {2, 4}}))});
    }
    plan = make_plan(graph, DeviceKind::cpu);
  }
};

constexpr std::array<double, 5> kSeconds = {2e-3, 1e-3, 0, 4e-3, 0};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

TEST_CASE("what nodes compute and move is read off the graph") {
  const Sample sample;
  REQUIRE(sample.plan.order.size() == 5);
  StepProfile profile;
  add_step(profile, sample.graph, sample.plan, kSeconds);
  REQUIRE(profile.nodes.size() == 4);  // the two updates are one launch
  const ProfiledNode& lookup = profile.nodes[0];
  CHECK(lookup.name == "bert.layer.0/embedding");
  CHECK(lookup.phase == "forward");
  CHECK(lookup.flops == 12);                     // one an element
  CHECK(lookup.bytes == 3 * 8 + 2 * 3 * 4 * 4);  // ids; rows read and written, not the whole table
  const ProfiledNode& square = profile.nodes[1];
  CHECK(square.flops == 100);
  CHECK(square.bytes == 2 * 3 * 4 * 4);  // the same operand twice is read once
  const ProfiledNode& flat = profile.nodes[2];
  CHECK(flat.phase == "backward");
  CHECK(flat.flops == 0);
  CHECK(flat.bytes == 0);
  const ProfiledNode& update = profile.nodes[3];
  CHECK(update.name == "bert.layer.0/step and 1 more");
  CHECK(update.phase == "update");
  CHECK(update.seconds == 4e-3);
  CHECK(update.bytes == 2 * 2 * 2 * 4 * 4);
}

TEST_CASE("seconds are the mean of the steps") {
  const Sample sample;
  StepProfile profile;
  for (const double factor : {1.0, 2.0, 6.0}) {
    std::vector<double> seconds(kSeconds.begin(), kSeconds.end());
    for (double& s : seconds) {
      s *= factor;
    }
    add_step(profile, sample.graph, sample.plan, seconds);
  }
  CHECK(profile.steps == 3);
  CHECK(profile.nodes[0].seconds == doctest::Approx(6e-3));
  CHECK(profile.nodes[3].seconds == doctest::Approx(12e-3));
}

TEST_CASE("times of another plan are refused") {
  const Sample sample;
  StepProfile profile;
  CHECK_THROWS_AS(add_step(profile, sample.graph, sample.plan, std::span(kSeconds).subspan(0, 4)),
                  GraphError);
  add_step(profile, sample.graph, sample.plan, kSeconds);
  profile.nodes[1].name = "another";
  CHECK_THROWS_AS(add_step(profile, sample.graph, sample.plan, kSeconds), GraphError);
  CHECK(profile.steps == 1);
}

// Two products, one bound by arithmetic and one by memory, and an addition that took longest.
StepProfile made_up() {
  StepProfile profile;
  profile.nodes = {{"a/matmul", "matmul", "forward", 2e-3, 4e9, 1e6},
                   {"a/view", "reshape", "forward", 0, 0, 0},
                   {"b/matmul", "matmul", "backward", 1e-3, 1e6, 2e6},
                   {"b/add", "add", "backward", 5e-3, 1e6, 1e7}};
  profile.steps = 5;
  profile.step_seconds = 10e-3;
  return profile;
}

TEST_CASE("totals by op, most time first, with floors of single launches") {
  StepProfile profile = made_up();
  profile.flops_per_s = 4e12;  // the first product: 1 ms
  profile.bytes_per_s = 1e10;  // the second: 0.2 ms, the addition: 1 ms
  const auto totals = totals_by_op(profile);
  REQUIRE(totals.size() == 3);
  CHECK(totals[0].op == "add");
  CHECK(totals[0].launches == 1);
  CHECK(totals[0].floor_seconds == doctest::Approx(1e-3));
  CHECK(totals[1].op == "matmul");
  CHECK(totals[1].launches == 2);
  CHECK(totals[1].seconds == doctest::Approx(3e-3));
  CHECK(totals[1].flops == 4.001e9);
  CHECK(totals[1].bytes == 3e6);
  CHECK(totals[1].floor_seconds == doctest::Approx(1.2e-3));
  CHECK(totals[2].op == "reshape");
  CHECK(totals[2].launches == 0);
}

TEST_CASE("the table") {
  StepProfile profile = made_up();
  CHECK(lines_of(profile_table(profile)) ==
        std::vector<std::string>{
            "Time of a step by op, mean of 5", "  op       launches     ms    share  GFLOP/s  GB/s",
            "  add             1  5.000   62.5 %        0     2",
            "  matmul          2  3.000   37.5 %     1334     1",
            "  reshape         0  0.000    0.0 %        –     –",
            "  all             3  8.000  100.0 %      500     2", "",
            "  phase     launches     ms   share  GFLOP/s  GB/s",
            "  forward          1  2.000  25.0 %     2000     0",
            "  backward         2  6.000  75.0 %        0     2",
            "Nodes take 8.000 ms in all, a step that is not profiled 10.000 ms (80.0 % of it)"});

  profile.flops_per_s = 4e12;
  profile.bytes_per_s = 1e10;
  profile.step_seconds = 0;
  const auto lines = lines_of(profile_table(profile));
  REQUIRE(lines.size() == 10);
  CHECK(lines[1] == "  op       launches     ms    share  GFLOP/s  GB/s  floor ms  times floor");
  CHECK(lines[2] == "  add             1  5.000   62.5 %        0     2     1.000         5.00");
  CHECK(lines[5] == "  all             3  8.000  100.0 %      500     2     2.200         3.64");
  CHECK(lines[9].ends_with("1.200         5.00"));
}

TEST_CASE("a profile without nodes") {
  const StepProfile empty;
  CHECK(totals_by_op(empty).empty());
  CHECK(profile_table(empty).find("nan") == std::string::npos);
  CHECK(chrome_trace(empty)["traceEvents"].empty());
}

TEST_CASE("the trace: nodes one after the other, a row for each phase") {
  StepProfile profile = made_up();
  profile.bytes_per_s = 1e10;
  const auto trace = nlohmann::json::parse(chrome_trace(profile).dump());
  std::vector<nlohmann::json> nodes;
  std::vector<std::string> rows;
  for (const auto& event : trace["traceEvents"]) {
    if (event["ph"] == "X") {
      nodes.push_back(event);
    } else {
      CHECK(event["name"] == "thread_name");
      rows.push_back(event["args"]["name"]);
      CHECK(event["tid"] == rows.size());
    }
  }
  CHECK(rows == std::vector<std::string>{"forward", "backward"});
  REQUIRE(nodes.size() == 4);
  CHECK(nodes[0]["name"] == "a/matmul");
  CHECK(nodes[0]["ts"] == 0);
  CHECK(nodes[0]["dur"] == 2000);
  CHECK(nodes[0]["tid"] == 1);
  CHECK(nodes[0]["args"]["op"] == "matmul");
  CHECK(nodes[0]["args"]["flops"] == 4e9);
  CHECK(nodes[1]["dur"] == 0);
  CHECK_FALSE(nodes[1]["args"].contains("GB/s"));
  CHECK(nodes[3]["ts"] == 3000);
  CHECK(nodes[3]["tid"] == 2);
  CHECK(nodes[3]["args"]["GB/s"].get<double>() == doctest::Approx(2));
  CHECK(nodes[3]["args"]["floor_us"] == 1000);
}

}  // namespace
