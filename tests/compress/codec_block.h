// One block of BERT or of ViT with coded activations: its plan, and its gradients from fixed random
// numbers.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <memory>
#include <optional>

#include "compress/passes.h"
#include "compress/saved_values.h"
#include "nn/models/bert.h"
#include "nn/models/vit.h"
#include "tensor/graph/verify.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/attention_dropout.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/fuse.h"
#include "tensor/ops/fuse_codecs.h"
#include "train/tiny_run.h"

namespace lithe::testing {

inline constexpr int64_t kHidden = 80;  // a tenth of all elements is whole
inline constexpr int64_t kHeads = 4;
inline constexpr int64_t kTokens = 17;
inline constexpr int64_t kBatch = 64;

inline PassManager codec_passes(const std::vector<std::string>& overrides) {
  return make_passes(tiny_recipe(overrides));
}

struct Setting {
  std::vector<std::string> codec = {};    // recipe keys; empty: off
  std::vector<std::string> trained = {};  // weights; biases and shifts always are
  bool unfused = false;                   // attention
  DType compute = DType::f32;
  bool fused = false;          // codes are made and read by the ops around them
  bool value_dropout = false;  // BERT's attention drops values
  int64_t tokens = kTokens;
  int64_t hidden = kHidden;
  int64_t batch = kBatch;
  int64_t heads = kHeads;
  double dropout = 0.1;    // BERT's
  double weights = 0.1;    // their deviation; 0: 1 / sqrt(3 fan_in), as PyTorch starts
  bool fuse_norms = true;  // with dropout and residual
};

template <typename Config>
Config config_of(const Setting& setting) {
  Config c;
  c.hidden_size = setting.hidden;
  c.num_attention_heads = setting.heads;
  c.intermediate_size = 4 * setting.hidden;
  if constexpr (std::is_same_v<Config, nn::BertConfig>) {
    c.hidden_dropout_prob = setting.dropout;
    c.attention_probs_dropout_prob = setting.dropout;
  }
  return c;
}

inline bool is_attention(const Graph& g, NodeId n) { return g.node(n).op == &attention_op; }

// One block of BERT or of ViT between an embedded input and a loss's gradient, coded and planned.
struct BlockPlan {
  BlockPlan(bool bert, const Setting& setting) {
    weights = setting.weights;
    rows = setting.batch * setting.tokens;
    if (bert) {
      bert_.emplace(slots, "block", config_of<nn::BertConfig>(setting));
    } else {
      vit_.emplace(slots, "block", config_of<nn::ViTConfig>(setting));
    }
    for (SlotId s = 0; s < slots.size(); ++s) {
      const bool unit = slots[s].name.ends_with(".weight");
      slots[s].trainable = !unit;
    }
    for (const std::string& name : setting.trained) {
      const SlotId slot = slots.find("block." + name);
      REQUIRE(slot != kNoSlot);
      slots[slot].trainable = true;
    }
    graph = std::make_unique<Graph>(slots);
    Graph& g = *graph;
    x = g.input("x", setting.compute, {setting.batch, setting.tokens, setting.hidden});
    // The block's input is produced by something, as in a network: it is not resident anyway.
    const ValueId made = scale(g, x, 2.0);
    ValueId y = kNoValue;
    if (bert) {
      mask = g.input("attention_mask", DType::boolean, {setting.batch, setting.tokens});
      rng = g.input("rng", DType::i64, {2});
      y = bert_->forward(g, made, mask, rng);
    } else {
      y = vit_->forward(g, made, kNoValue);
    }
    // The rewrites give y another producer; this node keeps reading it.
    const ValueId loss = scale(g, y, -1.0);
    if (setting.value_dropout) {
      drop_attention_values(g);
    }
    if (setting.unfused) {
      expand(g, is_attention);
    }
    std::optional<PassManager> passes;
    if (!setting.codec.empty()) {
      passes.emplace(codec_passes(setting.codec));
      passes->before_gradients({nullptr, &slots, &g});
    }
    if (setting.fuse_norms) {
      fuse_residual_norms(g);
    }
    fuse_parallel_linears(g);
    std::vector<ValueId> wanted = {x};
    for (ValueId v : g.leaves()) {
      if (g.value(v).slot != kNoSlot && slots[g.value(v).slot].trainable) {
        wanted.push_back(v);
      }
    }
    dy = g.input("dy", setting.compute, g.shape(loss));
    for (const ParameterGradient& p : build_gradients(g, loss, dy, wanted, add_op)) {
      g.mark_output(p.gradient, "grad." + g.name(p.parameter));
      gradients.push_back(p.gradient);
    }
    if (passes) {
      sites = passes->passes()[0]->match({nullptr, &slots, &g});
      saved_before = saved_values(g);
      estimate = passes->passes()[0]->estimate({nullptr, &slots, &g});
      report = passes->apply_graph({nullptr, &slots, &g})[0];
    }
    if (setting.fused) {
      std::vector<ParameterGradient> followed;
      for (ValueId v : gradients) {
        followed.push_back({kNoValue, v});
      }
      fused = fuse_codecs(g, followed);
      for (size_t i = 0; i < followed.size(); ++i) {
        gradients[i] = followed[i].gradient;
      }
    }
    g.eliminate_dead();
    verify(g, "codec");
    plan = make_plan(g, DeviceKind::cpu);
    for (const Buffer& b : plan.buffers) {
      if (b.cls == MemoryClass::saved_activations) {
        saved += g.bytes(b.value);
        by_name[g.name(b.value)] += g.bytes(b.value);
      }
    }
  }

  double per_token() const { return static_cast<double>(saved) / static_cast<double>(rows); }

  SlotTable slots;
  std::optional<nn::BertBlock> bert_;
  std::optional<nn::ViTBlock> vit_;
  std::unique_ptr<Graph> graph;
  Plan plan;
  ValueId x = kNoValue;
  ValueId mask = kNoValue;
  ValueId rng = kNoValue;
  ValueId dy = kNoValue;
  std::vector<ValueId> gradients;
  std::vector<Site> sites;
  std::vector<SavedValue> saved_before;
  PassEstimate estimate;
  PassReport report;
  int fused = 0;
  int64_t saved = 0;
  double weights = 0;
  int64_t rows = 0;  // tokens of all samples
  std::map<std::string, int64_t> by_name;
};

inline const Setting kOriginal = {.codec = {"codec.preset=slimfit_original", "codec.min_bytes=0"},
                                  .unfused = true,
                                  .value_dropout = true};
inline const Setting kSlimFit = {.codec = {"codec.preset=slimfit", "codec.min_bytes=0"}};

inline Setting with_trained(Setting setting, const std::vector<std::string>& trained) {
  setting.trained = trained;
  return setting;
}

// All gradients of the block from fixed random numbers, by name.
inline std::map<std::string, Tensor> run(BlockPlan& block) {
  Executor executor(cpu_memory(), kernel_lookup(DeviceKind::cpu), block.slots);
  const Program program = executor.bind(*block.graph, block.plan);
  const auto normal = [](DType dtype, const Shape& shape, uint64_t stream, double by) {
    Tensor out(DType::f64, shape);
    auto values = out.as<double>();
    for (size_t i = 0; i < values.size(); ++i) {
      const PhiloxBlock r = philox(17, stream, i);
      values[i] = by * std::sqrt(-2 * std::log(static_cast<double>(uniform01(r.word[0])) + 1e-9)) *
                  std::cos(6.283185307179586 * static_cast<double>(uniform01(r.word[1])));
    }
    return out.to(dtype);
  };
  for (SlotId s = 0; s < block.slots.size(); ++s) {
    const Slot& slot = block.slots[s];
    const bool norm = slot.name.find("orm") != std::string::npos;
    const double linear = block.weights > 0
                              ? block.weights
                              : 1 / std::sqrt(3 * static_cast<double>(slot.shape.back()));
    Tensor value =
        normal(slot.dtype, slot.shape, static_cast<uint64_t>(s) + 5, norm ? 0.02 : linear);
    if (norm && slot.name.ends_with("weight")) {
      for (float& w : value.as<float>()) {
        w += 1;
      }
    }
    executor.write_slot(s, value);
  }
  const Graph& g = *block.graph;
  executor.write(program, block.x, normal(g.dtype(block.x), g.shape(block.x), 1, 0.5));
  executor.write(program, block.dy, normal(g.dtype(block.dy), g.shape(block.dy), 2, 1));
  if (block.mask != kNoValue) {
    Tensor mask(DType::boolean, g.shape(block.mask));
    for (bool& m : mask.as<bool>()) {
      m = true;
    }
    executor.write(program, block.mask, mask);
    executor.write(program, block.rng, Tensor::from<int64_t>({2}, std::vector<int64_t>{3, 4}));
  }
  executor.run(program);
  std::map<std::string, Tensor> out;
  for (ValueId v : block.gradients) {
    out.emplace(g.name(v), executor.read(program, v));
  }
  return out;
}

// The same gradients, bit by bit.
inline void check_same_bits(const std::map<std::string, Tensor>& expected,
                            const std::map<std::string, Tensor>& got) {
  REQUIRE(expected.size() == got.size());
  for (const auto& [name, value] : expected) {
    INFO(name);
    REQUIRE(got.contains(name));
    CHECK(same_bits(value, got.at(name)));
  }
}

inline double relative_error(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(DType::f64);
  const Tensor y = b.to(DType::f64);
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < static_cast<size_t>(x.numel()); ++i) {
    const double d = x.as<double>()[i] - y.as<double>()[i];
    error += d * d;
    size += y.as<double>()[i] * y.as<double>()[i];
  }
  return std::sqrt(error / size);
}

}  // namespace lithe::testing
