#include "compress/recompute.h"

#include <algorithm>
#include <map>

#include "compress/rerun.h"
#include "compress/selector.h"
#include "tensor/ops/residual_norm.h"

namespace lithe {
namespace {

// A region is a set of forward nodes: one repeated block, or a block's nodes whose names match a
// pattern. A block's own output stays, since it is the next block's input; of single nodes
// everything goes.
struct Region {
  std::string name;
  std::vector<NodeId> nodes;
  bool keep_outputs = true;
};

class Recompute final : public Pass {
 public:
  explicit Recompute(const recipe::Recipe& section)
      : blocks_(section.string("blocks")), patterns_(section.strings("patterns")) {
    if (blocks_ == "none" && patterns_.empty()) {
      throw UsageError("recompute",
                       "{}: nothing is chosen; give blocks or patterns, or recompute: off",
                       section.where("blocks"));
    }
  }

  std::string_view name() const override { return "recompute"; }
  Stage stage() const override { return Stage::graph; }

  std::vector<Site> match(const PassTarget& target) const override {
    std::vector<Site> sites;
    const Graph& g = *target.graph;
    for (const Region& region : regions(target)) {
      Site site{region.name, "region", {}, ""};
      if (saved_by(g, region).values.empty()) {
        site.refused = "backward reads nothing of it";
      }
      sites.push_back(std::move(site));
    }
    return sites;
  }

  PassEstimate estimate(const PassTarget& target) const override {
    PassEstimate out;
    const Graph& g = *target.graph;
    for (const Region& region : regions(target)) {
      for (ValueId v : saved_by(g, region).values) {
        out.bytes[static_cast<size_t>(MemoryClass::saved_activations)] -= g.bytes(v);
      }
      for (NodeId n : region.nodes) {
        const OpDef& op = *g.node(n).op;
        out.flops += op.flops == nullptr ? 0 : op.flops(g, n);
      }
    }
    return out;
  }

  PassReport apply(const PassTarget& target) override {
    Graph& g = *target.graph;
    PassReport report;
    report.name = "recompute";
    int64_t clones = 0;
    int64_t regions_changed = 0;
    for (const Region& region : regions(target)) {
      const int64_t count = rewrite(g, region);
      clones += count;
      regions_changed += count > 0 ? 1 : 0;
    }
    report.sites = regions_changed;
    report.what = fmt::format("{} regions, {} nodes run twice", regions_changed, clones);
    return report;
  }

  std::string invert(const PassTarget& /*target*/) override {
    // Graphs are rebuilt for every run; the next one is simply built without the pass.
    return {};
  }

 private:
  std::vector<Region> regions(const PassTarget& target) const {
    const Graph& g = *target.graph;
    std::vector<Region> out;
    if (blocks_ != "none") {
      const std::vector<int> wanted =
          parse_blocks(blocks_, target.model->block_count(), "recompute.blocks");
      std::vector<int> region_of(static_cast<size_t>(target.model->block_count()), -1);
      for (int b : wanted) {
        region_of[static_cast<size_t>(b)] = static_cast<int>(out.size());
        out.push_back({fmt::format("block {}", b), {}, true});
      }
      for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
        const int block = g.scope_of(n).block;
        if (g.node(n).phase == Phase::forward && block >= 0 &&
            region_of[static_cast<size_t>(block)] >= 0) {
          out[static_cast<size_t>(region_of[static_cast<size_t>(block)])].nodes.push_back(n);
        }
      }
    }
    for (const std::string& pattern : patterns_) {
      std::map<int, std::vector<NodeId>> by_block;
      for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
        if (g.node(n).phase == Phase::forward && glob_match(pattern, g.node_name(n))) {
          by_block[g.scope_of(n).block].push_back(n);
        }
      }
      if (by_block.empty()) {
        throw UsageError("recompute.patterns", "'{}' matches no forward node; names look like '{}'",
                         pattern, g.first() == kNoNode ? "" : g.node_name(g.first()));
      }
      for (auto& [block, nodes] : by_block) {
        out.push_back({pattern, std::move(nodes), false});
      }
    }
    return out;
  }

  // What is dropped: the values made here that backward reads, except the outputs that stay.
  struct Saved {
    std::vector<bool> boundary;     // by value: an output that stays
    std::vector<bool> dropped;      // by value
    std::vector<ValueId> values;    // the same as a list
    NodeId first_reader = kNoNode;  // the earliest backward node that reads one of them
  };

  // Whether n joins what was made before its block: the last sum of one block with the first norm
  // of the next. Of these the sum stays, from which the norm is had again, and neither of its
  // terms.
  static bool joins_blocks(const Graph& g, NodeId n) {
    if (g.node(n).op != &residual_norm_op) {
      return false;
    }
    const auto before = [&](int input) {
      const NodeId made = g.value(g.in(n, input)).producer;
      return made == kNoNode || g.scope_of(made).block != g.scope_of(n).block;
    };
    return before(0) && before(1);
  }
  static ValueId sum_of(const Graph& g, NodeId n) { return g.output(n, 1); }

  // The outputs of such a node once more, but for the sum.
  static void norm_again(Graph& g, NodeId n, std::vector<ValueId>& to) {
    const NodeId again = emit_norm_of_sum(g, n);
    to[static_cast<size_t>(g.output(n, 0))] = g.output(again, 0);
    to[static_cast<size_t>(g.output(n, 2))] = g.output(again, 1);
    to[static_cast<size_t>(g.output(n, 3))] = g.output(again, 2);
  }

  static Saved saved_by(const Graph& g, const Region& region) {
    std::vector<bool> inside(static_cast<size_t>(g.node_count()), false);
    for (NodeId n : region.nodes) {
      inside[static_cast<size_t>(n)] = true;
    }
    Saved saved;
    saved.boundary.resize(static_cast<size_t>(g.value_count()));
    for (ValueId v = 0; v < g.value_count(); ++v) {
      saved.boundary[static_cast<size_t>(v)] = g.value(v).is_output;
    }
    for (NodeId n : region.nodes) {
      if (region.keep_outputs && joins_blocks(g, n)) {
        saved.boundary[static_cast<size_t>(sum_of(g, n))] = true;
      }
    }
    saved.dropped.assign(static_cast<size_t>(g.value_count()), false);
    for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
      if (inside[static_cast<size_t>(n)]) {
        continue;
      }
      const bool forward = g.node(n).phase == Phase::forward;
      for (ValueId v : g.inputs(n)) {
        if (v == kNoValue || g.value(v).producer == kNoNode ||
            !inside[static_cast<size_t>(g.value(v).producer)]) {
          continue;
        }
        const auto i = static_cast<size_t>(v);
        if (forward && region.keep_outputs) {
          if (joins_blocks(g, n)) {
            continue;
          }
          saved.boundary[i] = true;
        } else if (!forward && !saved.boundary[i]) {
          saved.first_reader = saved.first_reader == kNoNode ? n : saved.first_reader;
          if (!saved.dropped[i]) {
            saved.dropped[i] = true;
            saved.values.push_back(v);
          }
        }
      }
    }
    return saved;
  }

  // Clones what is needed of `nodes` in front of the first backward reader; returns how many.
  static int64_t rewrite(Graph& g, const Region& region) {
    const Saved saved = saved_by(g, region);
    if (saved.first_reader == kNoNode) {
      return 0;
    }
    std::vector<bool> needed = saved.dropped;
    std::vector<bool> cloned(static_cast<size_t>(g.node_count()), false);
    for (auto it = region.nodes.rbegin(); it != region.nodes.rend(); ++it) {
      const auto outs = g.outputs(*it);
      if (std::any_of(outs.begin(), outs.end(),
                      [&](ValueId v) { return needed[static_cast<size_t>(v)]; })) {
        cloned[static_cast<size_t>(*it)] = true;
        if (region.keep_outputs && joins_blocks(g, *it)) {
          continue;
        }
        for (ValueId v : g.inputs(*it)) {
          if (v != kNoValue && !saved.boundary[static_cast<size_t>(v)]) {
            needed[static_cast<size_t>(v)] = true;
          }
        }
      }
    }

    const auto known = static_cast<size_t>(g.value_count());
    std::vector<ValueId> to(known, kNoValue);
    const Phase saved_phase = g.phase();
    const ScopeId saved_scope = g.current_scope();
    g.set_cursor(saved.first_reader);
    g.set_phase(Phase::backward);
    int64_t count = 0;
    std::vector<ValueId> inputs;
    for (NodeId n : region.nodes) {
      if (!cloned[static_cast<size_t>(n)]) {
        continue;
      }
      g.set_scope(g.node(n).scope);
      ++count;
      if (region.keep_outputs && joins_blocks(g, n)) {
        norm_again(g, n, to);
        continue;
      }
      inputs.clear();
      for (ValueId v : g.inputs(n)) {
        const bool swapped = v != kNoValue && to[static_cast<size_t>(v)] != kNoValue;
        inputs.push_back(swapped ? to[static_cast<size_t>(v)] : v);
      }
      const Attrs attrs = g.node(n).attrs;
      const NodeId clone = g.emit_node(*g.node(n).op, inputs, attrs);
      for (int i = 0; i < g.node(n).output_count; ++i) {
        if (const ValueId v = g.output(n, i); !saved.boundary[static_cast<size_t>(v)]) {
          to[static_cast<size_t>(v)] = g.output(clone, i);
        }
      }
    }
    g.set_cursor(kNoNode);
    g.set_phase(saved_phase);
    g.set_scope(saved_scope);
    for (NodeId n = saved.first_reader; n != kNoNode; n = g.next(n)) {
      for (int i = 0; i < g.node(n).input_count; ++i) {
        const ValueId v = g.in(n, i);
        if (v != kNoValue && static_cast<size_t>(v) < known &&
            to[static_cast<size_t>(v)] != kNoValue) {
          g.replace_input(n, i, to[static_cast<size_t>(v)]);
        }
      }
    }
    return count;
  }

  std::string blocks_;
  std::vector<std::string> patterns_;
};

recipe::Schema options() {
  using recipe::Type;
  recipe::Schema schema;
  schema
      .add({.key = "blocks",
            .type = Type::string,
            .fallback = std::string("all"),
            .help = "blocks to recompute: all, none, 0-8, 0-2,5 or last 2"})
      .add({.key = "patterns",
            .type = Type::string_list,
            .fallback = std::vector<std::string>{},
            .help = "further regions by node name, * and ? allowed"});
  return schema;
}

std::unique_ptr<Pass> make(const recipe::Recipe& section) {
  return std::make_unique<Recompute>(section);
}

}  // namespace

const PassKind recompute_pass = {"recompute", "compute activations again instead of keeping them",
                                 options, make};

}  // namespace lithe
