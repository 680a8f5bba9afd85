#include <fmt/core.h>

#include <map>

#include "registry/case_graph.h"
#include "registry/fills.h"
#include "registry/modes.h"
#include "tensor/ops/op_table.h"

namespace lithe::registry {
namespace {

constexpr DType kDTypes[] = {DType::f64, DType::f32, DType::bf16, DType::f16};

enum class Support : uint8_t { missing, undefined, works };

bool has_elements(const CaseGraph& built) {
  const Graph& g = *built.graph;
  for (ValueId v : g.leaves()) {
    if (g.shape(v).numel() == 0) {
      return false;
    }
  }
  return true;
}

class SupportTable {
 public:
  explicit SupportTable(uint64_t seed) : seed_(seed) {}

  // Runs a case at one dtype; every op in it then works there.
  void run(const Case& c, DType dtype) {
    const CaseGraph built = build_case(c, {.dtype = dtype});
    if (!has_elements(built)) {
      return;
    }
    bool news = false;
    for (NodeId n : built.graph->order()) {
      news = news || !works_[{built.graph->node(n).op, dtype}];
    }
    if (!news) {
      return;
    }
    Session session(built, cpu_memory(), cpu_kernel);
    session.write(make_inputs(c, dtype, seed_), make_cotangent(built, seed_));
    session.run();
    for (NodeId n : built.graph->order()) {
      works_[{built.graph->node(n).op, dtype}] = true;
    }
  }
  void note_single_only(const OpDef* op) { single_only_[op] = true; }
  void note_error(const OpDef* op, DType dtype, std::string text) {
    errors_[{op, dtype}] = std::move(text);
  }

  Support of(const OpDef* op, DType dtype) {
    if (works_[{op, dtype}]) {
      return Support::works;
    }
    const bool refused = dtype_bits(dtype) == 16 && single_only_[op];
    return refused ? Support::undefined : Support::missing;
  }
  const std::string& error(const OpDef* op, DType dtype) { return errors_[{op, dtype}]; }

 private:
  using Key = std::pair<const OpDef*, DType>;
  uint64_t seed_;
  std::map<Key, bool> works_;
  std::map<Key, std::string> errors_;
  std::map<const OpDef*, bool> single_only_;  // no case of the op runs in 16 bits
};

}  // namespace

void list_support(const std::vector<Case>& cases, const std::vector<const OpDef*>& ops,
                  uint64_t seed, Report& report) {
  SupportTable table(seed);
  std::map<const OpDef*, bool> any_halves;
  for (const Case& c : cases) {
    any_halves[c.op] = any_halves[c.op] || c.halves;
    for (const DType dtype : kDTypes) {
      if (dtype_bits(dtype) == 16 && !c.halves) {
        continue;
      }
      try {
        table.run(c, dtype);
      } catch (const std::exception& e) {
        table.note_error(c.op, dtype, fmt::format("{}: {}", describe(c), e.what()));
      }
    }
  }
  for (const auto& [op, halves] : any_halves) {
    if (!halves) {
      table.note_single_only(op);
    }
  }

  fmt::print("{:<24} {:>5} {:>5} {:>5} {:>5}   {}\n", "op", "fp64", "fp32", "bf16", "fp16", "cuda");
  for (const OpDef* op : ops) {
    std::string row = fmt::format("{:<24}", op->name);
    nlohmann::json entry = {{"op", op->name}};
    for (const DType dtype : kDTypes) {
      const Support s = table.of(op, dtype);
      constexpr std::string_view kWords[] = {"NO", "-", "yes"};
      row += fmt::format(" {:>5}", kWords[static_cast<int>(s)]);
      entry["cpu"][std::string(dtype_name(dtype))] = s == Support::works;
      report.check(s != Support::missing, fmt::format("[{}] cpu {}", op->name, dtype_name(dtype)),
                   table.error(op, dtype).empty() ? "no case runs it" : table.error(op, dtype));
    }
    const bool cuda = cuda_kernel(*op).run != nullptr;
    entry["cuda"] = cuda;
    fmt::print("{}   {}\n", row, cuda ? "yes" : "-");
    report.record(entry);
  }
}

}  // namespace lithe::registry
