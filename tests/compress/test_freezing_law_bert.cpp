// What freezing saves on BERT's post-norm block with dropout, in bytes per token (SlimFit, table of
// saved tensors). Eager training that stores its masks keeps 66H + 9hT + 16; masks are regenerated
// here, which leaves 64H + 8hT + 16:
//
//   block input, read by q, k and v            4H       first norm's input, mean, 1/std   4H + 8
//   q, k, v, by heads                         12H       first norm's output, read by
//   probabilities                            4hT          the wide layer                  4H
//   probabilities after dropout, for dV      4hT       GELU's input                      16H
//   context, read by the output layer          4H       GELU's output, read by the
//                                                         narrow layer                   16H
//                                                       second norm's input, statistics   4H + 8
//
// and the masks that are not there are hT of the probabilities and H of each of two layers'
// outputs.
#include <doctest/doctest.h>

#include <map>

#include "nn/models/bert.h"
#include "tensor/graph/plan.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/elementwise.h"

using namespace lithe;  // NOLINT

namespace {

constexpr int64_t kHidden = 64;
constexpr int64_t kHeads = 4;
constexpr int64_t kTokens = 17;
constexpr int64_t kBatch = 64;

struct Setting {
  std::vector<std::string> frozen = {};
  bool fused = false;          // attention
  bool input_gradient = true;  // as in a block with trained ones below it
};

// One block between an embedded input and a loss's gradient.
struct BlockPlan {
  explicit BlockPlan(const Setting& setting) : block(slots, "block", make_config()) {
    for (const std::string& name : setting.frozen) {
      const SlotId slot = slots.find("block." + name);
      REQUIRE(slot != kNoSlot);
      slots[slot].trainable = false;
    }
    Graph g(slots);
    const ValueId x = g.input("x", DType::f32, {kBatch, kTokens, kHidden});
    const ValueId mask = g.input("attention_mask", DType::boolean, {kBatch, kTokens});
    const ValueId rng = g.input("rng", DType::i64, {2});
    // The block's input is produced by something, as in a network: it is not resident anyway.
    const ValueId y = block.forward(g, scale(g, x, 2.0), mask, rng);
    if (!setting.fused) {
      expand(g, [](const Graph& graph, NodeId n) { return graph.node(n).op == &attention_op; });
    }
    count_masks(g);
    std::vector<ValueId> wanted;
    if (setting.input_gradient) {
      wanted.push_back(x);
    }
    for (ValueId v : g.leaves()) {
      if (g.value(v).slot != kNoSlot && slots[g.value(v).slot].trainable) {
        wanted.push_back(v);
      }
    }
    const ValueId seed = g.input("dy", DType::f32, g.shape(y));
    for (const ParameterGradient& p : build_gradients(g, y, seed, wanted, add_op)) {
      g.mark_output(p.gradient, "grad." + g.name(p.parameter));
    }
    g.eliminate_dead();
    const Plan plan = make_plan(g, DeviceKind::cpu);
    for (const Buffer& b : plan.buffers) {
      if (b.cls == MemoryClass::saved_activations) {
        const int64_t bytes = g.bytes(b.value);
        CHECK(bytes % kArenaAlignment == 0);  // so that rounding hides nothing
        saved += bytes;
        by_name[g.name(b.value)] += bytes;
      }
    }
  }

  // Bytes of masks, one for each element that a dropout node reads.
  void count_masks(const Graph& g) {
    for (NodeId n : g.order()) {
      if (g.node(n).op == &dropout_op) {
        masks += g.shape(g.in(n, 0)).numel();
      }
    }
  }

  static nn::BertConfig make_config() {
    nn::BertConfig c;
    c.hidden_size = kHidden;
    c.num_attention_heads = kHeads;
    c.intermediate_size = 4 * kHidden;
    return c;
  }
  static int64_t a_token(int64_t bytes) {
    CHECK(bytes % (kBatch * kTokens) == 0);
    return bytes / (kBatch * kTokens);
  }
  int64_t per_token() const { return a_token(saved); }

  SlotTable slots;
  nn::BertBlock block;
  int64_t saved = 0;
  int64_t masks = 0;
  std::map<std::string, int64_t> by_name;
};

const std::string kQuery = "attention.self.query.weight";
const std::string kKey = "attention.self.key.weight";
const std::string kValue = "attention.self.value.weight";
const std::string kAttentionOutput = "attention.output.dense.weight";
const std::string kWide = "intermediate.dense.weight";
const std::string kSmall = "output.dense.weight";
// All units of SlimFit in a block; biases and the norms' shifts stay trained.
const std::vector<std::string> kUnits = {kQuery,
                                         kKey,
                                         kValue,
                                         kAttentionOutput,
                                         "attention.output.LayerNorm.weight",
                                         kWide,
                                         kSmall,
                                         "output.LayerNorm.weight"};

}  // namespace

TEST_CASE(
    "a post-norm block saves 64H + 8hT + 16 bytes per token, with stored masks 66H + 9hT + 16") {
  const BlockPlan block({});
  CHECK(block.per_token() == 64 * kHidden + 8 * kHeads * kTokens + 16);
  CHECK(BlockPlan::a_token(block.masks) == 2 * kHidden + kHeads * kTokens);
  CHECK(BlockPlan::a_token(block.saved + block.masks) == 66 * kHidden + 9 * kHeads * kTokens + 16);
}

TEST_CASE("each frozen linear of BERT removes its input from the plan, q/k/v only together") {
  const int64_t all = BlockPlan({}).per_token();
  struct Law {
    std::vector<std::string> frozen;
    int64_t gone_per_token;
  };
  const std::vector<Law> laws = {
      {{kQuery}, 0},
      {{kKey}, 0},
      {{kValue}, 0},
      {{kQuery, kKey}, 0},
      {{kKey, kValue}, 0},
      {{kQuery, kKey, kValue}, 4 * kHidden},
      {{kAttentionOutput}, 4 * kHidden},
      {{kWide}, 4 * kHidden},
      {{kSmall}, 16 * kHidden},          // the fused activation's output; its input stays for dx
      {{"output.LayerNorm.weight"}, 0},  // semi-static: dx needs the input too
      {kUnits, 28 * kHidden},
  };
  for (const Law& law : laws) {
    CAPTURE(fmt::format("{}", fmt::join(law.frozen, " ")));
    CHECK(all - BlockPlan({.frozen = law.frozen}).per_token() == law.gone_per_token);
  }
}

TEST_CASE("the linear with GELU fused keeps its output only for the next layer's weight") {
  const std::string y = "block.intermediate.dense/linear";
  const std::string before_gelu = y + "#1";
  const int64_t bytes = 16 * kHidden * kBatch * kTokens;
  const BlockPlan all({});
  REQUIRE(all.by_name.contains(y));
  CHECK(all.by_name.at(y) == bytes);
  CHECK(all.by_name.at(before_gelu) == bytes);
  const BlockPlan frozen({.frozen = {kSmall}});
  CHECK_FALSE(frozen.by_name.contains(y));
  CHECK(frozen.by_name.at(before_gelu) == bytes);
}

TEST_CASE("fused attention of BERT stores no T x T tensor, and freezing takes the rest") {
  // q, k, v, the output (also the next layer's input) and 4h of log-sum-exp instead of 8hT.
  const int64_t all = BlockPlan({.fused = true}).per_token();
  CHECK(all == 64 * kHidden + 4 * kHeads + 16);
  // The output stays: attention's own gradient reads it.
  CHECK(all - BlockPlan({.frozen = kUnits, .fused = true}).per_token() == 24 * kHidden);
}

TEST_CASE("a frozen block with nothing trained below it saves only what its biases need") {
  // The lowest trained values are the biases of q, k and v, so all static tensors stay.
  CHECK(BlockPlan({.frozen = kUnits, .input_gradient = false}).per_token() ==
        36 * kHidden + 8 * kHeads * kTokens + 16);
  std::vector<std::string> everything = kUnits;
  for (const std::string& unit : kUnits) {
    everything.push_back(unit.substr(0, unit.rfind('.')) + ".bias");
  }
  CHECK(BlockPlan({.frozen = everything, .input_gradient = false}).per_token() == 0);
}
