// Values that wait for backward in host memory: the same bits, less of the arena, and a block on
// the host that is planned too.
#include "compress/codec_block.h"
#include "tensor/ops/offload.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

const std::vector<std::string> kTrained = {"attention.output.dense.weight",
                                           "intermediate.dense.weight", "output.dense.weight"};

Setting setting_of(const std::string& edges) {
  Setting setting = with_trained({}, kTrained);
  if (!edges.empty()) {
    setting.codec = {"codec.edges=" + edges, "codec.min_bytes=0"};
  }
  return setting;
}

std::vector<NodeId> copies_of(const BlockPlan& block) {
  std::vector<NodeId> out;
  for (NodeId n : block.plan.order) {
    if (block.graph->node(n).op->name.starts_with("offload")) {
      out.push_back(n);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("offloaded values leave every gradient bit-equal, and the arena") {
  for (const bool bert : {true, false}) {
    BlockPlan plain(bert, setting_of(""));
    CHECK(plain.plan.host_bytes == 0);
    const auto expected = run(plain);
    for (const std::string edges :
         {"any:offload", "gelu_input:offload", "[\"linear_input:recompute\", \"any:offload\"]"}) {
      CAPTURE(bert);
      CAPTURE(edges);
      BlockPlan block(bert, setting_of(edges));
      CHECK(block.report.what.find("on the host") != std::string::npos);
      const int64_t gone = plain.saved - block.saved;
      CHECK(gone == -block.estimate.bytes[static_cast<size_t>(MemoryClass::saved_activations)]);
      CHECK(block.plan.host_bytes > 0);
      CHECK(block.plan.host_bytes <= gone + gone / 100);
      // The input of GELU alone is back when backward begins, and nothing else has gone.
      const int64_t least = edges.starts_with("gelu") ? 0 : 1;
      CHECK(plain.plan.live_peak_bytes - block.plan.live_peak_bytes >= least);
      check_same_bits(expected, run(block));
    }
  }
}

TEST_CASE("one copy is under way at a time, and its buffers live until it is done") {
  for (const bool bert : {true, false}) {
    const BlockPlan block(bert, setting_of("any:offload"));
    const Graph& g = *block.graph;
    const std::vector<NodeId> copies = copies_of(block);
    REQUIRE(copies.size() >= 12);
    CHECK(copies.size() % 2 == 0);
    for (size_t i = 0; i < copies.size(); i += 2) {
      const NodeId copy = copies[i];
      const NodeId wait = copies[i + 1];
      REQUIRE(g.node(wait).op == &offload_wait_op);
      CHECK(g.node(copy).op != &offload_wait_op);
      CHECK(g.in(wait, 0) == g.output(copy, 0));
      const bool store = g.node(copy).op == &offload_store_op;
      const auto at = [&](NodeId n) {
        return std::find(block.plan.order.begin(), block.plan.order.end(), n) -
               block.plan.order.begin();
      };
      const auto placed = [&](ValueId v) { return block.plan.placement[static_cast<size_t>(v)]; };
      const ValueId on_device = store ? g.in(copy, 0) : g.output(copy, 0);
      CHECK(placed(on_device).block == Placement::Block::arena);
      CHECK(placed(store ? g.output(copy, 0) : g.in(copy, 0)).block == Placement::Block::host);
      if (store) {
        CHECK(g.in(wait, 1) == g.in(copy, 0));
      }
      const Buffer& buffer = block.plan.buffers[static_cast<size_t>(placed(on_device).buffer)];
      CHECK(buffer.first <= at(copy));
      CHECK(buffer.last >= at(wait));
    }
    // Values that are on the host at the same time lie apart.
    for (const Buffer& a : block.plan.host_buffers) {
      CHECK(a.offset + a.bytes <= block.plan.host_bytes);
      for (const Buffer& b : block.plan.host_buffers) {
        const bool together = a.first <= b.last && b.first <= a.last;
        const bool apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
        CHECK((&a == &b || !together || apart));
      }
    }
  }
}

TEST_CASE("offload composes with codecs and fused codecs") {
  Setting setting = setting_of("[\"gelu_input:q2.1\", \"activation_output:offload\"]");
  BlockPlan apart(true, setting);
  setting.fused = true;
  BlockPlan together(true, setting);
  CHECK(together.fused >= 1);
  CHECK(copies_of(together).size() == 4);
  CHECK(together.plan.host_bytes == apart.plan.host_bytes);
  const auto expected = run(apart);
  for (const auto& [name, value] : run(together)) {
    INFO(name);
    CHECK(same_bits(value, expected.at(name)));
  }
}

TEST_CASE("whole models train bit-equal from host memory, also where every buffer is poisoned") {
  const std::vector<std::string> dropout = {"model.vit.hidden_dropout_prob=0.1",
                                            "model.vit.attention_probs_dropout_prob=0.1"};
  const auto with = [](std::vector<std::string> a, const std::vector<std::string>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  for (const auto& base :
       {dropout, with(dropout, {"model.attention=unfused"}), with(dropout, {"train.accumulate=2"}),
        with(dropout, {"recompute.blocks=0-1"})}) {
    TinyRun plain(base);
    TinyRun away(with(base, {"codec.edges=any:offload", "codec.min_bytes=0"}));
    const Plan& plan = away.experiment.update_step().plan;
    CHECK(plan.host_bytes > 0);
    CHECK(away.executor.host_bytes() >= plan.host_bytes);
    CHECK(plan.live_peak_bytes < plain.experiment.update_step().plan.live_peak_bytes);
    for (int step = 0; step < 3; ++step) {
      CHECK(plain.step(step) == away.step(step));
    }
    away.feed(away.update, away.experiment.update_step(), 3);
    away.executor.run_poisoned(away.update);
    plain.step(3);
    for (SlotId s = 0; s < plain.experiment.slots().size(); ++s) {
      INFO(plain.experiment.slots()[s].name);
      CHECK(same_bits(plain.executor.read_slot(s), away.executor.read_slot(s)));
    }
  }
}
