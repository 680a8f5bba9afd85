// Values computed again from what backward keeps anyway: the same bits in fewer bytes.
#include "compress/codec_block.h"
#include "tensor/ops/activation_codes.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/residual_norm.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

const std::vector<std::string> kTrained = {"attention.attention.query.weight",
                                           "attention.self.query.weight",
                                           "attention.output.dense.weight",
                                           "intermediate.dense.weight",
                                           "output.dense.weight",
                                           "layernorm_before.weight",
                                           "layernorm_after.weight"};

// Of kTrained, those that the block has.
std::vector<std::string> trained_of(bool bert) {
  SlotTable slots;
  std::optional<nn::BertBlock> a;
  std::optional<nn::ViTBlock> b;
  bert ? void(a.emplace(slots, "block", config_of<nn::BertConfig>({})))
       : void(b.emplace(slots, "block", config_of<nn::ViTConfig>({})));
  std::vector<std::string> out;
  for (const std::string& name : kTrained) {
    if (slots.find("block." + name) != kNoSlot) {
      out.push_back(name);
    }
  }
  return out;
}

Setting setting_of(bool bert, const std::string& edges) {
  Setting setting;
  setting.trained = trained_of(bert);
  if (!edges.empty()) {
    setting.codec = {"codec.edges=" + edges, "codec.min_bytes=0"};
  }
  return setting;
}

int again_of(const Graph& g, const OpDef& op) {
  int found = 0;
  for (NodeId n : g.order()) {
    found += g.node(n).op == &op && g.node(n).phase == Phase::backward ? 1 : 0;
  }
  return found;
}

const Site* site_of(const BlockPlan& block, const std::string& part) {
  for (const Site& site : block.sites) {
    if (site.path.find(part) != std::string::npos) {
      return &site;
    }
  }
  return nullptr;
}

}  // namespace

TEST_CASE("what is computed again leaves every gradient bit-equal, and is not kept") {
  for (const bool bert : {true, false}) {
    BlockPlan plain(bert, setting_of(bert, ""));
    const auto expected = run(plain);
    for (const std::string edges :
         {"activation_output:recompute", "linear_input:recompute", "any:recompute"}) {
      CAPTURE(bert);
      CAPTURE(edges);
      BlockPlan block(bert, setting_of(bert, edges));
      CHECK(block.report.sites >= 1);
      // 4 H numbers a token of the activation, H of each norm whose output a product reads.
      const int64_t hidden = edges.starts_with("activation") ? 4 : (bert ? 5 : 6);
      CHECK(plain.saved - block.saved >= hidden * kHidden * kBatch * kTokens * 4);
      CHECK(block.saved - plain.saved ==
            block.estimate.bytes[static_cast<size_t>(MemoryClass::saved_activations)]);
      CHECK(block.plan.live_peak_bytes < plain.plan.live_peak_bytes);
      CHECK(again_of(*block.graph, gelu_op) == 1);
      check_same_bits(expected, run(block));
    }
  }
}

TEST_CASE("a norm's output comes from the kept sum of residual norm") {
  const BlockPlan block(true, setting_of(true, "linear_input:recompute"));
  CHECK(again_of(*block.graph, layer_norm_op) == 1);
  CHECK(again_of(*block.graph, residual_norm_op) == 0);
}

TEST_CASE("products are not computed again, nor is what stands on dropped values") {
  const BlockPlan block(true, setting_of(true, "any:recompute"));
  const Site* query = site_of(block, "query");
  REQUIRE(query != nullptr);
  CHECK(query->refused.find("is made by a product") != std::string::npos);
  CHECK(query->refused.find("use the recompute pass") != std::string::npos);
  // The norm's output needs its sum; where that goes, too, it would need the product before it.
  Setting frozen = setting_of(true, "attention_output:recompute");
  const BlockPlan attention(true, frozen);
  CHECK(attention.report.sites == 0);
  CHECK(attention.report.what.find("refused") != std::string::npos);
}

TEST_CASE(
    "what is computed again reads codes of its operand, fused into the ops around it or not") {
  for (const bool bert : {true, false}) {
    for (const std::string edges :
         {"[\"gelu_input:q2.1\", \"activation_output:recompute\"]",
          "[\"gelu_input:int8/16\", \"norm_input:int8/16\", \"linear_input:recompute\"]"}) {
      CAPTURE(bert);
      CAPTURE(edges);
      Setting setting = setting_of(bert, edges);
      BlockPlan apart(bert, setting);
      setting.fused = true;
      BlockPlan together(bert, setting);
      CHECK(together.fused >= 1);
      CHECK(again_of(*together.graph, gelu_op) == 1);
      CHECK(together.saved == apart.saved);
      CHECK(together.plan.live_peak_bytes <= apart.plan.live_peak_bytes);
      for (const Buffer& b : together.plan.buffers) {
        const bool whole =
            b.cls == MemoryClass::saved_activations &&
            together.graph->bytes(b.value) == 4 * kHidden * kBatch * kTokens * int64_t{4};
        CHECK_FALSE(whole);
      }
      const auto got = run(together);
      check_same_bits(run(apart), got);
      BlockPlan plain(bert, setting_of(bert, ""));
      CHECK(relative_error(got.at("grad.x"), run(plain).at("grad.x")) < 0.2);
    }
  }
}

TEST_CASE("whole models train bit-equal with values computed again") {
  const std::vector<std::string> dropout = {"model.vit.hidden_dropout_prob=0.1",
                                            "model.vit.attention_probs_dropout_prob=0.1"};
  const auto with = [](std::vector<std::string> a, const std::vector<std::string>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  for (const auto& base :
       {std::vector<std::string>{}, dropout, with(dropout, {"model.attention=unfused"}),
        with(dropout, {"train.accumulate=2"}), with(dropout, {"train.fuse=false"}),
        with(dropout, {"recompute.blocks=0-1"})}) {
    TinyRun plain(base);
    TinyRun again(with(base, {"codec.edges=any:recompute", "codec.min_bytes=0"}));
    CHECK(again.experiment.update_step().passes.back().sites > 3);
    CHECK(again.experiment.update_step().plan.live_peak_bytes <
          plain.experiment.update_step().plan.live_peak_bytes);
    for (int step = 0; step < 3; ++step) {
      CHECK(plain.step(step) == again.step(step));
    }
    for (SlotId s = 0; s < plain.experiment.slots().size(); ++s) {
      INFO(plain.experiment.slots()[s].name);
      CHECK(same_bits(plain.executor.read_slot(s), again.executor.read_slot(s)));
    }
  }
}
