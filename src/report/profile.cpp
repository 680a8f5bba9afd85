#include "report/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "report/text_table.h"
#include "tensor/core/error.h"
#include "tensor/graph/phase_name.h"

namespace lithe {
namespace {

// Of their first input they read no more than they write: rows of a table, a part of a tensor.
constexpr std::array<std::string_view, 2> kReadsPart = {"embedding", "slice"};

bool is_view(const OpDef& op) {
  return std::any_of(op.aliases.begin(), op.aliases.end(),
                     [](const AliasRule& rule) { return rule.kind == Alias::view; });
}

double node_flops(const Graph& graph, NodeId n) {
  const OpDef& op = *graph.node(n).op;
  if (op.flops != nullptr) {
    return op.flops(graph, n);
  }
  double elements = 0;
  for (ValueId v : graph.outputs(n)) {
    elements += v == kNoValue ? 0 : static_cast<double>(graph.shape(v).numel());
  }
  return elements;
}

double node_bytes(const Graph& graph, NodeId n) {
  double written = 0;
  for (ValueId v : graph.outputs(n)) {
    written += v == kNoValue ? 0 : static_cast<double>(graph.bytes(v));
  }
  const OpDef& op = *graph.node(n).op;
  const bool reads_part =
      std::find(kReadsPart.begin(), kReadsPart.end(), op.name) != kReadsPart.end();
  double read = 0;
  const auto inputs = graph.inputs(n);
  for (size_t i = 0; i < inputs.size(); ++i) {
    // A value that stands twice among the operands is read once.
    const auto first = std::find(inputs.begin(), inputs.end(), inputs[i]) - inputs.begin();
    if (inputs[i] == kNoValue || static_cast<size_t>(first) != i) {
      continue;
    }
    const auto bytes = static_cast<double>(graph.bytes(inputs[i]));
    read += i == 0 && reads_part ? std::min(bytes, written) : bytes;
  }
  return read + written;
}

ProfiledNode describe(const Graph& graph, const Plan& plan, size_t begin, size_t end) {
  const NodeId first = plan.order[begin];
  ProfiledNode out;
  out.name = graph.node_name(first);
  if (end - begin > 1) {
    out.name += fmt::format(" and {} more", end - begin - 1);
  }
  out.op = graph.node(first).op->name;
  out.phase = phase_name(graph.node(first).phase);
  for (size_t p = begin; p < end; ++p) {
    const NodeId n = plan.order[p];
    if (!is_view(*graph.node(n).op)) {
      out.flops += node_flops(graph, n);
      out.bytes += node_bytes(graph, n);
    }
  }
  return out;
}

double floor_seconds(const StepProfile& profile, const ProfiledNode& node) {
  const double compute = profile.flops_per_s > 0 ? node.flops / profile.flops_per_s : 0;
  const double traffic = profile.bytes_per_s > 0 ? node.bytes / profile.bytes_per_s : 0;
  return std::max(compute, traffic);
}

void add_to(OpTotal& total, const StepProfile& profile, const ProfiledNode& node) {
  total.launches += node.flops > 0 || node.bytes > 0 ? 1 : 0;
  total.seconds += node.seconds;
  total.flops += node.flops;
  total.bytes += node.bytes;
  total.floor_seconds += floor_seconds(profile, node);
}

// In order of first appearance.
template <typename Key>
std::vector<OpTotal> totals(const StepProfile& profile, Key key) {
  std::vector<OpTotal> out;
  for (const ProfiledNode& node : profile.nodes) {
    auto at = std::find_if(out.begin(), out.end(),
                           [&](const OpTotal& total) { return total.op == key(node); });
    if (at == out.end()) {
      at = out.insert(out.end(), OpTotal{.op = key(node)});
    }
    add_to(*at, profile, node);
  }
  return out;
}

std::string share(double part, double whole) {
  return whole > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : "–";
}

std::string rate(double amount, double seconds) {
  return seconds > 0 && amount > 0 ? fmt::format("{:.0f}", 1e-9 * amount / seconds) : "–";
}

}  // namespace

void add_step(StepProfile& profile, const Graph& graph, const Plan& plan,
              std::span<const double> seconds) {
  if (seconds.size() != plan.order.size()) {
    throw GraphError("profile", "{} times for {} nodes; give what Executor::run_profiled returned",
                     seconds.size(), plan.order.size());
  }
  std::vector<ProfiledNode> nodes;
  for (size_t p = 0; p < plan.order.size();) {
    const auto end = static_cast<size_t>(plan.group_end[p]);
    nodes.push_back(describe(graph, plan, p, end));
    for (; p < end; ++p) {
      nodes.back().seconds += seconds[p];
    }
  }
  if (profile.steps == 0) {
    profile.nodes = std::move(nodes);
    profile.steps = 1;
    return;
  }
  if (!std::equal(nodes.begin(), nodes.end(), profile.nodes.begin(), profile.nodes.end(),
                  [](const auto& a, const auto& b) { return a.name == b.name; })) {
    throw GraphError("profile",
                     "a step of {} nodes was added to a profile of {} others; a profile takes "
                     "steps of one plan only",
                     nodes.size(), profile.nodes.size());
  }
  ++profile.steps;
  for (size_t i = 0; i < nodes.size(); ++i) {
    double& mean = profile.nodes[i].seconds;
    mean += (nodes[i].seconds - mean) / profile.steps;
  }
}

std::vector<OpTotal> totals_by_op(const StepProfile& profile) {
  auto out = totals(profile, [](const ProfiledNode& node) { return node.op; });
  std::stable_sort(out.begin(), out.end(),
                   [](const OpTotal& a, const OpTotal& b) { return a.seconds > b.seconds; });
  return out;
}

std::string profile_table(const StepProfile& profile) {
  OpTotal whole{.op = "all"};
  for (const ProfiledNode& node : profile.nodes) {
    add_to(whole, profile, node);
  }
  const bool has_floor = profile.flops_per_s > 0 || profile.bytes_per_s > 0;
  std::vector<std::vector<std::string>> rows;
  std::vector<Align> align(has_floor ? 8 : 6, Align::kRight);
  align[0] = Align::kLeft;
  const auto heading = [&](const std::string& what) {
    rows = {{what, "launches", "ms", "share", "GFLOP/s", "GB/s"}};
    if (has_floor) {
      rows[0].insert(rows[0].end(), {"floor ms", "times floor"});
    }
  };
  const auto add_row = [&](const OpTotal& t) {
    rows.push_back({printable(t.op), fmt::format("{}", t.launches),
                    fmt::format("{:.3f}", 1e3 * t.seconds), share(t.seconds, whole.seconds),
                    rate(t.flops, t.seconds), rate(t.bytes, t.seconds)});
    if (has_floor) {
      rows.back().push_back(fmt::format("{:.3f}", 1e3 * t.floor_seconds));
      rows.back().push_back(t.floor_seconds > 0 ? fmt::format("{:.2f}", t.seconds / t.floor_seconds)
                                                : "–");
    }
  };

  std::string text = fmt::format("Time of a step by op, mean of {}\n", profile.steps);
  heading("op");
  for (const OpTotal& total : totals_by_op(profile)) {
    add_row(total);
  }
  add_row(whole);
  text += align_columns(rows, align) + "\n";
  heading("phase");
  for (const OpTotal& total : totals(profile, [](const auto& node) { return node.phase; })) {
    add_row(total);
  }
  text += align_columns(rows, align);
  if (profile.step_seconds > 0) {
    text += fmt::format(
        "Nodes take {:.3f} ms in all, a step that is not profiled {:.3f} ms ({} of it)\n",
        1e3 * whole.seconds, 1e3 * profile.step_seconds,
        share(whole.seconds, profile.step_seconds));
  }
  return text;
}

nlohmann::ordered_json chrome_trace(const StepProfile& profile) {
  // Nanoseconds suffice, and keep the file small.
  const auto microseconds = [](double seconds) { return std::round(1e9 * seconds) * 1e-3; };
  nlohmann::ordered_json events = nlohmann::ordered_json::array();
  std::vector<std::string> rows;
  double now = 0;
  for (const ProfiledNode& node : profile.nodes) {
    auto row = std::find(rows.begin(), rows.end(), node.phase);
    const auto tid = row - rows.begin() + 1;
    if (row == rows.end()) {
      rows.push_back(node.phase);
      events.push_back({{"name", "thread_name"},
                        {"ph", "M"},
                        {"pid", 1},
                        {"tid", tid},
                        {"args", {{"name", node.phase}}}});
    }
    nlohmann::ordered_json args = {{"op", node.op}, {"flops", node.flops}, {"bytes", node.bytes}};
    if (node.seconds > 0) {
      args["GB/s"] = 1e-9 * node.bytes / node.seconds;
      args["GFLOP/s"] = 1e-9 * node.flops / node.seconds;
    }
    if (const double floor = floor_seconds(profile, node); floor > 0) {
      args["floor_us"] = microseconds(floor);
    }
    events.push_back({{"name", node.name},
                      {"cat", node.op},
                      {"ph", "X"},
                      {"pid", 1},
                      {"tid", tid},
                      {"ts", microseconds(now)},
                      {"dur", microseconds(node.seconds)},
                      {"args", args}});
    now += node.seconds;
  }
  return {{"traceEvents", events},
          {"displayTimeUnit", "ms"},
          {"otherData", {{"steps", profile.steps}, {"step_ms", 1e3 * profile.step_seconds}}}};
}

}  // namespace lithe
