// What freezing saves on a standard pre-norm block, in bytes per token: 64H + 4hT + 16 with nothing
// frozen (unfused attention, no dropout, fp32), and what each frozen linear takes away (SlimFit,
// table of saved tensors).
#include <doctest/doctest.h>

#include <map>

#include "nn/models/vit.h"
#include "tensor/graph/plan.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/op_table.h"

using namespace lithe;  // NOLINT

namespace {

constexpr int64_t kHidden = 64;
constexpr int64_t kHeads = 4;
constexpr int64_t kTokens = 17;
constexpr int64_t kBatch = 64;

// One block between an embedded input and a mean: x is an input that wants a gradient, as in a deep
// net.
struct BlockPlan {
  explicit BlockPlan(const std::vector<std::string>& frozen, bool fused = false)
      : config(make_config()), block(slots, "block", config) {
    Graph g(slots);
    for (const std::string& name : frozen) {
      const SlotId slot = slots.find("block." + name);
      REQUIRE(slot != kNoSlot);
      slots[slot].trainable = false;
    }
    const ValueId x = g.input("x", DType::f32, {kBatch, kTokens, kHidden});
    // The block's input is produced by something, as in a network: it is not resident anyway.
    const ValueId produced = scale(g, x, 2.0);
    const ValueId y = block.forward(g, produced, kNoValue);
    if (!fused) {
      expand(g, [](const Graph& graph, NodeId n) { return graph.node(n).op == &attention_op; });
    }
    std::vector<ValueId> wanted = {x};
    for (ValueId v : g.leaves()) {
      if (g.value(v).slot != kNoSlot && slots[g.value(v).slot].trainable) {
        wanted.push_back(v);
      }
    }
    const ValueId seed = g.input("dy", DType::f32, g.shape(y));
    const auto grads = build_gradients(g, y, seed, wanted, add_op);
    for (const ParameterGradient& p : grads) {
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

  static nn::ViTConfig make_config() {
    nn::ViTConfig c;
    c.hidden_size = kHidden;
    c.num_attention_heads = kHeads;
    c.intermediate_size = 4 * kHidden;
    return c;
  }
  int64_t per_token() const {
    CHECK(saved % (kBatch * kTokens) == 0);
    return saved / (kBatch * kTokens);
  }

  SlotTable slots;
  nn::ViTConfig config;
  nn::ViTBlock block;
  int64_t saved = 0;
  std::map<std::string, int64_t> by_name;
};

}  // namespace

TEST_CASE("a pre-norm block saves 64H + 4hT + 16 bytes per token") {
  const BlockPlan block({});
  CHECK(block.per_token() == 64 * kHidden + 4 * kHeads * kTokens + 16);
}

TEST_CASE("each frozen linear removes its input from the plan, q/k/v only together") {
  const int64_t all = BlockPlan({}).per_token();
  const std::string q = "attention.attention.query.weight";
  const std::string k = "attention.attention.key.weight";
  const std::string v = "attention.attention.value.weight";
  // A linear's input as its neighbour's output: the norm before q, k and v; the context; the norm
  // before the wide layer; the activation's output.
  struct Law {
    std::vector<std::string> frozen;
    int64_t saved_per_token;
  };
  const std::vector<Law> laws = {
      {{q}, 0},
      {{k}, 0},
      {{v}, 0},
      {{q, k}, 0},
      {{k, v}, 0},
      {{q, k, v}, 4 * kHidden},
      {{"attention.output.dense.weight"}, 4 * kHidden},
      {{"intermediate.dense.weight"}, 4 * kHidden},
      {{"output.dense.weight"}, 16 * kHidden},
      {{"layernorm_before.weight"}, 0},  // semi-static: dx needs the input too
      {{q, k, v, "attention.output.dense.weight", "intermediate.dense.weight",
        "output.dense.weight"},
       28 * kHidden},
  };
  for (const Law& law : laws) {
    CAPTURE(fmt::format("{}", fmt::join(law.frozen, " ")));
    CHECK(all - BlockPlan(law.frozen).per_token() == law.saved_per_token);
  }
}

TEST_CASE("what vanishes is the frozen linear's own input") {
  const BlockPlan all({});
  const BlockPlan no_output({"output.dense.weight"});
  int64_t gone = 0;
  for (const auto& [name, bytes] : all.by_name) {
    if (!no_output.by_name.contains(name)) {
      gone += 1;
      CHECK(name == "block/gelu");
      CHECK(bytes == 16 * kHidden * kBatch * kTokens);
    }
  }
  CHECK(gone == 1);
}

TEST_CASE("fused attention stores no T x T tensor") {
  const BlockPlan fused({}, true);
  // q, k, v, the output (also the next linear's input) and 4h of log-sum-exp instead of 4hT.
  CHECK(fused.per_token() == 64 * kHidden + 4 * kHeads + 16);
}
