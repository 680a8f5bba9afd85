// Codes made and read on the way through other ops, against codes by ops of their own: the same
// bits, and no more memory.
#include "compress/codec_block.h"
#include "tensor/ops/activation_codes.h"
#include "tensor/ops/attention_codes.h"
#include "tensor/ops/linear_activation.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/residual_norm_codes.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

int count(const Graph& g, const OpDef& op) {
  int found = 0;
  for (NodeId n : g.order()) {
    found += g.node(n).op == &op ? 1 : 0;
  }
  return found;
}

// Groups in whole lanes: 80 columns in groups of 16.
Setting grouped(const std::vector<std::string>& edges, DType compute = DType::f32) {
  std::string list;
  for (const std::string& e : edges) {
    list += (list.empty() ? "\"" : ", \"") + e + "\"";
  }
  return {.codec = {"codec.edges=[" + list + "]", "codec.min_bytes=0"}, .compute = compute};
}

const std::vector<std::string> kWholeGroups = {"attention:int8/16", "attention_output:int8/4",
                                               "gelu_input:q2.1", "activation_output:int8/16",
                                               "frozen_norm_input:int4/16"};

Setting fused(Setting setting) {
  setting.fused = true;
  return setting;
}

// Bytes of each buffer that backward keeps of forward.
std::vector<int64_t> saved_sizes(const BlockPlan& block) {
  std::vector<int64_t> out;
  for (const Buffer& b : block.plan.buffers) {
    if (b.cls == MemoryClass::saved_activations) {
      out.push_back(block.graph->bytes(b.value));
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

TEST_CASE("fused codecs give every gradient the bits of separate ones") {
  for (const bool bert : {true, false}) {
    for (const bool trained : {false, true}) {
      for (const Setting& base : {kSlimFit, kOriginal, grouped(kWholeGroups)}) {
        CAPTURE(bert);
        CAPTURE(trained);
        CAPTURE(base.codec[0]);
        const Setting setting =
            trained ? with_trained(base, {"output.dense.weight", "intermediate.dense.weight"})
                    : base;
        BlockPlan apart(bert, setting);
        BlockPlan together(bert, fused(setting));
        CHECK(together.fused >= 2);
        CHECK(count(*together.graph, activation_codes_op) == 1);
        CHECK(count(*together.graph, activation_codes_grad_op) == 1);
        check_same_bits(run(apart), run(together));
      }
    }
  }
}

TEST_CASE("norms keep codes of whole groups, and no sum that only backward reads") {
  for (const bool bert : {true, false}) {
    const BlockPlan block(bert, fused(grouped(kWholeGroups)));
    const Graph& g = *block.graph;
    // ViT's first norm has no sum in front of it.
    const int norms = bert ? 2 : 1;
    CHECK(count(g, residual_norm_codes_op) == norms);
    CHECK(count(g, residual_norm_codes_grad_op) == 2);
    CHECK(count(g, residual_norm_grad_op) + count(g, layer_norm_dx_op) == 0);
    for (NodeId n : g.order()) {
      if (g.node(n).op == &residual_norm_codes_op) {
        CHECK(g.attr<ResidualNormCodesAttrs>(n).sum == !bert);
      }
    }
    // Rows of 80 are not made of groups of 64.
    CHECK(count(*BlockPlan(bert, fused(kSlimFit)).graph, residual_norm_codes_op) == 0);
  }
}

TEST_CASE("operands that share a scale between heads stay coded and decoded apart") {
  Setting setting = grouped({"attention:int8/16"}, DType::f32);
  setting.hidden = 32;  // a group is two of these heads
  const BlockPlan block(true, fused(setting));
  CHECK(count(*block.graph, attention_codes_grad_op) == 0);
}

TEST_CASE("attention's gradient reads codes of its operands in fp32: same bits, no more memory") {
  for (const bool bert : {true, false}) {
    for (const DType compute : {DType::bf16, DType::f16, DType::f32}) {
      CAPTURE(bert);
      CAPTURE(dtype_name(compute));
      Setting setting = grouped({"attention:int8/32", "attention_output:derive"}, compute);
      setting.hidden = 128;
      setting.heads = 2;
      setting.batch = 4;
      BlockPlan apart(bert, setting);
      BlockPlan together(bert, fused(setting));
      // In 16 bits the gradient takes operands that were decoded ahead.
      const bool reads = compute == DType::f32;
      CHECK(count(*together.graph, attention_codes_grad_op) == (reads ? 1 : 0));
      CHECK(count(*together.graph, quantize_decode_op) == (reads ? 0 : 3));
      for (const NodeId n : together.graph->order()) {
        if (together.graph->node(n).op == &attention_codes_grad_op) {
          CHECK(together.graph->attr<AttentionCodesGradAttrs>(n).grad.bias_sums);
        }
      }
      CHECK(saved_sizes(together) == saved_sizes(apart));
      // Such graphs are made for CUDA only.
      CHECK(make_plan(*together.graph, DeviceKind::cuda).live_peak_bytes <=
            make_plan(*apart.graph, DeviceKind::cuda).live_peak_bytes);
      check_same_bits(run(apart), run(together));
    }
  }
}

TEST_CASE("activations read codes with scales: same bits, no more memory") {
  for (const bool bert : {true, false}) {
    for (const std::string codec : {"int8/16", "int4/64", "int8/8"}) {
      for (const DType compute : {DType::f32, DType::bf16}) {
        CAPTURE(bert);
        CAPTURE(codec);
        CAPTURE(dtype_name(compute));
        const Setting setting = grouped({"gelu_input:" + codec}, compute);
        BlockPlan apart(bert, setting);
        BlockPlan together(bert, fused(setting));
        CHECK(count(*apart.graph, quantize_decode_op) == 1);
        CHECK(count(*together.graph, quantize_decode_op) == 0);
        CHECK(count(*together.graph, activation_grad_op) == 0);
        CHECK(count(*together.graph, activation_codes_grad_op) == 1);
        CHECK(saved_sizes(together) == saved_sizes(apart));
        for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
          CAPTURE(static_cast<int>(device));
          CHECK(make_plan(*together.graph, device).live_peak_bytes <=
                make_plan(*apart.graph, device).live_peak_bytes);
        }
        if (bert && compute == DType::bf16) {
          continue;  // a layer's own activation, which no code leaves there, reads unrounded sums
        }
        check_same_bits(run(apart), run(together));
      }
    }
    // Rows of 320 are no groups of 128.
    const BlockPlan block(bert, fused(grouped({"gelu_input:int8/128"})));
    CHECK(count(*block.graph, activation_codes_grad_op) == 0);
  }
}

TEST_CASE("BERT-base on a GPU with all edges in int8: only attention's edges are decoded") {
  constexpr int kLayers = 12;
  Experiment experiment(
      recipe::Recipe::load(fmt::format("{}/configs/bench/bert_base_qa.yaml", LITHE_SOURCE_DIR),
                           train_options(),
                           std::array{std::string("codec.edges=[\"any:int8/64\"]"),
                                      std::string("train.compute=bf16"),
                                      std::string("freeze.all_but=[\"*.bias\"]")}),
      DeviceKind::cuda);
  const Graph& g = *experiment.update_step().graph;
  // By the products in front of them.
  CHECK(count(g, linear_activation_codes_op) == kLayers);
  CHECK(count(g, matmul_activation_codes_grad_op) == kLayers);
  CHECK(count(g, activation_codes_op) + count(g, activation_codes_grad_op) == 0);
  CHECK(count(g, residual_norm_codes_op) == 2 * kLayers);
  CHECK(count(g, residual_norm_codes_grad_op) == 2 * kLayers);
  // And the loss's logits.
  CHECK(count(g, quantize_encode_op) == 4 * kLayers + 1);
  CHECK(count(g, quantize_decode_op) == 4 * kLayers + 1);
}

TEST_CASE("fused codecs keep the same bytes and no more memory") {
  for (const bool bert : {true, false}) {
    for (const Setting& base :
         {kSlimFit, kOriginal, grouped(kWholeGroups), grouped(kWholeGroups, DType::bf16)}) {
      for (const std::vector<std::string>& trained :
           {std::vector<std::string>{}, {"output.dense.weight", "intermediate.dense.weight"}}) {
        CAPTURE(bert);
        CAPTURE(base.codec[0]);
        CAPTURE(trained.size());
        const Setting setting = with_trained(base, trained);
        const BlockPlan apart(bert, setting);
        const BlockPlan together(bert, fused(setting));
        CHECK(together.saved == apart.saved);
        for (const DeviceKind device : {DeviceKind::cpu, DeviceKind::cuda}) {
          CAPTURE(static_cast<int>(device));
          CHECK(make_plan(*together.graph, device).live_peak_bytes <=
                make_plan(*apart.graph, device).live_peak_bytes);
        }
        // The same codes wait for backward, and no full-size copy besides.
        CHECK(saved_sizes(together) == saved_sizes(apart));
      }
    }
  }
}

TEST_CASE("BERT-base plans the same saved activations with train.fuse on and off") {
  for (const std::string preset : {"slimfit", "slimfit_original"}) {
    std::array<int64_t, 2> saved{};
    for (const bool on : {false, true}) {
      Experiment experiment(
          recipe::Recipe::load(
              fmt::format("{}/configs/bench/bert_base_qa.yaml", LITHE_SOURCE_DIR), train_options(),
              std::array{"codec.preset=" + preset, std::string("train.compute=bf16"),
                         std::string("model.attention=fused"),
                         fmt::format("train.fuse={}", on ? "true" : "false"),
                         std::string("freeze.all_but=[\"*.bias\"]")}),
          DeviceKind::cpu);
      for (const Buffer& b : experiment.update_step().plan.buffers) {
        saved[on] += b.cls == MemoryClass::saved_activations ? b.bytes : 0;
      }
    }
    CAPTURE(preset);
    CHECK(saved[0] == saved[1]);
  }
}

TEST_CASE("BERT-base on a GPU: every GELU and norm of the preset slimfit codes on its way") {
  constexpr int kLayers = 12;
  Experiment experiment(
      recipe::Recipe::load(
          fmt::format("{}/configs/bench/bert_base_qa.yaml", LITHE_SOURCE_DIR), train_options(),
          std::array{std::string("codec.preset=slimfit"), std::string("train.compute=bf16"),
                     std::string("freeze.all_but=[\"*.bias\"]")}),
      DeviceKind::cuda);
  const StepGraph& step = experiment.update_step();
  const Graph& g = *step.graph;
  // By the products in front of them.
  CHECK(count(g, linear_activation_codes_op) == kLayers);
  CHECK(count(g, matmul_activation_codes_grad_op) == kLayers);
  CHECK(count(g, activation_codes_op) + count(g, activation_codes_grad_op) == 0);
  CHECK(count(g, fixed_point_encode_op) + count(g, fixed_point_decode_op) == 0);
  // Backward ends at the embeddings' norm, whose shift's gradient reads no input.
  CHECK(count(g, residual_norm_codes_op) == 2 * kLayers);
  CHECK(count(g, residual_norm_codes_grad_op) == 2 * kLayers);
  for (NodeId n : g.order()) {
    if (g.node(n).op == &residual_norm_codes_op) {
      CHECK_FALSE(g.attr<ResidualNormCodesAttrs>(n).sum);
    }
  }
  // Query, key and value alone are coded, and decoded, by kernels of their own.
  CHECK(count(g, quantize_encode_op) == 3 * kLayers);
  CHECK(count(g, quantize_decode_op) == 3 * kLayers);
}

TEST_CASE("decodings of attention's operands are neighbours, and so are encodings") {
  for (const bool bert : {true, false}) {
    const BlockPlan block(bert, kSlimFit);
    const auto longest = [&](const OpDef& op) {
      int most = 0;
      int now = 0;
      for (NodeId n : block.plan.order) {
        now = block.graph->node(n).op == &op ? now + 1 : 0;
        most = std::max(most, now);
      }
      return most;
    };
    CHECK(longest(quantize_encode_op) >= 3);
    CHECK(longest(quantize_decode_op) >= 3);
  }
}
