// op_registry: one registry of ops and shapes drives every proof.
#include <fmt/core.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <map>

#include "registry/modes.h"
#include "tensor/ops/op_table.h"

namespace {

using namespace lithe;
using namespace lithe::registry;

constexpr int kCasesAnOp = 8;

struct Options {
  std::string mode = "compare";
  std::string op;
  std::string device = "cpu";
  std::string json;
  std::string match;
  std::string part;
  uint64_t seed = 1;
  bool list = false;
};

Device open_device(const std::string& name) {
  if (name == "cpu") {
    return {cpu_memory(), kernel_lookup(DeviceKind::cpu)};
  }
  int index = 0;
  const bool plain = name == "cuda";
  const char* digits = name.c_str() + std::min<size_t>(5, name.size());
  const char* end = name.c_str() + name.size();
  if (!plain && (!name.starts_with("cuda:") ||
                 std::from_chars(digits, end, index) != std::from_chars_result{end, {}})) {
    throw UsageError("--device", "'{}' is no device; use cpu, cuda or cuda:N", name);
  }
  return {cuda_memory(index), kernel_lookup(DeviceKind::cuda)};
}

std::vector<Case> choose(std::vector<Case> cases, const Options& options) {
  std::erase_if(cases, [&](const Case& c) {
    return (!options.op.empty() && c.op->name != options.op) ||
           c.name.find(options.match) == std::string::npos;
  });
  return cases;
}

// "K/N" leaves the K-th of N shares. Cases of one op follow one another, so that processes which
// share the work load (and instrument) few kernels twice.
void keep_part(std::vector<Case>& cases, const std::string& part) {
  size_t k = 0;
  size_t n = 0;
  const char* const end = part.data() + part.size();
  const auto first = std::from_chars(part.data(), end, k);
  const bool divided = first.ec == std::errc{} && first.ptr != end && *first.ptr == '/';
  if (!divided || std::from_chars(first.ptr + 1, end, n) != std::from_chars_result{end, {}} ||
      k < 1 || k > n) {
    throw UsageError("--part", "'{}' is no part; use K/N with K from 1 to N", part);
  }
  const auto at = [&](size_t share) {
    return cases.begin() + static_cast<std::ptrdiff_t>(cases.size() * share / n);
  };
  cases = std::vector<Case>(std::make_move_iterator(at(k - 1)), std::make_move_iterator(at(k)));
}

// Forward ops have eight cases; no op of the table goes unexercised.
void check_coverage(const std::vector<Case>& cases, const OpSet& seen, Report& report) {
  std::map<const OpDef*, int> count;
  for (const Case& c : cases) {
    ++count[c.op];
  }
  for (const OpDef* op : op_table()) {
    const bool own = count[op] > 0 || op->grad != nullptr || op->has_effect;
    if (own) {
      report.check(count[op] >= kCasesAnOp, fmt::format("[{}] cases", op->name),
                   fmt::format("{} given, {} wanted", count[op], kCasesAnOp));
    }
    report.check(seen.contains(op), fmt::format("[{}] is exercised", op->name),
                 "no case runs it, directly or through a gradient");
  }
}

int run(const Options& options) {
  if (!options.op.empty() && find_op(options.op) == nullptr) {
    throw UsageError("--op", "no op is called '{}'; --list shows them", options.op);
  }
  const std::vector<Case> all = all_cases();
  std::vector<Case> cases = choose(all, options);
  if (!options.part.empty()) {
    keep_part(cases, options.part);
  }
  const bool whole = options.op.empty() && options.match.empty() && options.part.empty();
  if (options.list) {
    for (const Case& c : cases) {
      fmt::print("{}\n", describe(c));
    }
    return 0;
  }
  if (cases.empty() && options.mode != "perf") {
    throw UsageError("--case", "no case is of op '{}' with '{}' in its name; --list shows them",
                     options.op, options.match);
  }
  Report report(options.mode);
  OpSet seen;
  if (options.mode == "grad") {
    check_gradients(cases, options.seed, report, seen);
  } else if (options.mode == "compare") {
    const Device device = open_device(options.device);
    compare(cases, device, options.seed, report, seen);
    if (whole && device.memory->kind() == DeviceKind::cpu) {
      check_coverage(all, seen, report);
    }
  } else if (options.mode == "run") {
    run_all(cases, open_device(options.device), options.seed, report, seen);
  } else if (options.mode == "perf") {
    const Device device = open_device(options.device);
    const bool gpu = device.memory->kind() == DeviceKind::cuda;
    std::vector<Case> timed = choose(gpu ? large_perf_cases() : perf_cases(), options);
    timed.insert(timed.end(), cases.begin(), cases.end());
    measure(timed, device, options.seed, report);
  } else {
    std::vector<const OpDef*> ops(op_table().begin(), op_table().end());
    std::erase_if(ops,
                  [&](const OpDef* op) { return !options.op.empty() && op->name != options.op; });
    list_support(all, ops, options.seed, report);
  }
  report.print_summary();
  if (!options.json.empty()) {
    std::ofstream(options.json) << report.json().dump(1) << '\n';
  }
  return report.failed() == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Proofs over the registry of ops and shapes");
  app.add_option("--mode", options.mode, "Which proof")
      ->check(CLI::IsMember({"compare", "grad", "run", "perf", "support"}))
      ->capture_default_str();
  app.add_option("--op", options.op, "Cases of this op only");
  app.add_option("--case", options.match, "Cases whose name contains this text only");
  app.add_option("--part", options.part, "K/N: only the K-th of N shares of these cases");
  app.add_option("--device", options.device, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--json", options.json, "Write every figure to this file");
  app.add_option("--seed", options.seed, "Of all inputs")->capture_default_str();
  app.add_flag("--list", options.list, "Print the chosen cases and stop");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(options);
  } catch (const Error& e) {
    fmt::print(stderr, "op_registry: {}\n", e.what());
    return static_cast<int>(e.code());
  }
}
