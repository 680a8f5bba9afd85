// Codecs of saved activations: what the plan holds with them, in bytes per token beside SlimFit's
// table of saved tensors, and what they refuse.
#include "compress/codec_block.h"
#include "compress/codec_format.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

std::string message(const std::vector<std::string>& overrides) {
  try {
    TinyRun run(overrides);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("slimfit_original keeps 9.6H + hT + 8 bytes per token of BERT, 6.6H + hT + 8 of ViT") {
  // SlimFit's table: q, k, v 3H, probabilities hT, GELU's input 2H, two norms 0.8H + 4 each, and 3H
  // of masks in BERT. A tenth of the block's elements is whole here.
  const double h = kHidden;
  for (const bool bert : {true, false}) {
    CAPTURE(bert);
    const double floor = (bert ? 9.6 : 6.6) * h + kHeads * kTokens + 8;
    CHECK(BlockPlan(bert, kOriginal).per_token() == doctest::Approx(floor).epsilon(1e-12));
  }
  // A bit an element instead of a byte: 3H / 8.
  Setting packed = kOriginal;
  packed.codec.emplace_back("codec.edges=dropout_mask:bits");
  CHECK(BlockPlan(true, packed).per_token() ==
        doctest::Approx((6.6 + 3.0 / 8) * h + kHeads * kTokens + 8).epsilon(1e-12));
}

TEST_CASE("stored masks and unfused attention are the eager baseline, to the byte") {
  const double h = kHidden;
  const double ht = kHeads * kTokens;
  const std::vector<std::string> units = {
      "attention.self.query.weight",       "attention.self.key.weight",
      "attention.self.value.weight",       "attention.output.dense.weight",
      "intermediate.dense.weight",         "output.dense.weight",
      "attention.output.LayerNorm.weight", "output.LayerNorm.weight"};
  const Setting bert{.codec = {"codec.edges=dropout_mask:bytes", "codec.min_bytes=0"},
                     .trained = units,
                     .unfused = true};
  CHECK(BlockPlan(true, bert).per_token() == doctest::Approx(66 * h + 9 * ht + 16).epsilon(1e-12));
  const Setting vit{
      .trained = {"attention.attention.query.weight", "attention.attention.key.weight",
                  "attention.attention.value.weight", "attention.output.dense.weight",
                  "intermediate.dense.weight", "output.dense.weight", "layernorm_before.weight",
                  "layernorm_after.weight"},
      .unfused = true};
  CHECK(BlockPlan(false, vit).per_token() == doctest::Approx(64 * h + 4 * ht + 16).epsilon(1e-12));
}

TEST_CASE("slimfit_original: what each trained unit adds is the table's") {
  struct Unit {
    std::string bert;
    std::string vit;
    double adds;
  };
  const double h = kHidden;
  const Unit units[] = {
      {"attention.self.query.weight", "attention.attention.query.weight", 4 * h},
      {"attention.output.dense.weight", "attention.output.dense.weight", 4 * h},
      {"intermediate.dense.weight", "intermediate.dense.weight", 4 * h},
      {"output.dense.weight", "output.dense.weight", 4 * h},  // 16H in int8
      {"attention.output.LayerNorm.weight", "layernorm_after.weight", 3.2 * h - 4},
      {"output.LayerNorm.weight", "layernorm_before.weight", 3.2 * h - 4},
  };
  for (const bool bert : {true, false}) {
    const double floor = BlockPlan(bert, kOriginal).per_token();
    for (const Unit& u : units) {
      CAPTURE(u.bert);
      const BlockPlan plan(bert, with_trained(kOriginal, {bert ? u.bert : u.vit}));
      // A trained norm keeps its input alone: no 1 / std, hence the 4.
      CHECK(plan.per_token() - floor == doctest::Approx(u.adds).epsilon(1e-12));
    }
    const std::string self = bert ? "attention.self." : "attention.attention.";
    const BlockPlan three(bert, with_trained(kOriginal, {self + "query.weight", self + "key.weight",
                                                         self + "value.weight"}));
    CHECK(three.per_token() - floor == doctest::Approx(4 * h).epsilon(1e-12));
    std::vector<std::string> all = {self + "query.weight", self + "key.weight",
                                    self + "value.weight"};
    for (size_t i = 1; i < std::size(units); ++i) {
      all.push_back(bert ? units[i].bert : units[i].vit);
    }
    CHECK(BlockPlan(bert, with_trained(kOriginal, all)).per_token() - floor ==
          doctest::Approx(22.4 * h - 8).epsilon(1e-12));
  }
}

TEST_CASE("slimfit keeps neither probabilities nor attention's output: codes of what is left") {
  // Codes: q, k and v H each in int8, GELU's input 2H, two norms H / 2 each in int4. A bf16 scale
  // for each 64 of a row, two in a row of 80; log-sum-exp 4h; mean and 1 / std 8 a norm.
  const double h = kHidden;
  const double codes = 3 * h + 2 * h + h;
  const double scales = 2 * (3 + 2) * 2;
  for (const bool bert : {true, false}) {
    CAPTURE(bert);
    CHECK(BlockPlan(bert, kSlimFit).per_token() ==
          doctest::Approx(codes + scales + 4 * kHeads + 2 * 8).epsilon(1e-12));
  }
  // The wide layer's output for the narrow one's weight: 4H and a scale for each 64.
  const BlockPlan trained(true, with_trained(kSlimFit, {"output.dense.weight"}));
  CHECK(trained.per_token() - BlockPlan(true, kSlimFit).per_token() ==
        doctest::Approx(4 * h + 2 * 4 * h / 64).epsilon(1e-12));
  // Inputs of other trained layers in bf16; attention's output is one of them.
  for (const std::string unit : {"attention.output.dense", "intermediate.dense"}) {
    CAPTURE(unit);
    const BlockPlan block(true, with_trained(kSlimFit, {unit + ".weight"}));
    CHECK(block.per_token() - BlockPlan(true, kSlimFit).per_token() ==
          doctest::Approx(2 * h).epsilon(1e-12));
  }
  // A trained norm's input too, instead of int4 with its scales.
  const BlockPlan norm(true, with_trained(kSlimFit, {"output.LayerNorm.weight"}));
  CHECK(norm.per_token() - BlockPlan(true, kSlimFit).per_token() ==
        doctest::Approx(2 * h - h / 2 - 2 * 2).epsilon(1e-12));
}

TEST_CASE("derive: attention's gradient reads no output, whether something else keeps it or not") {
  const auto outputs_read = [](const BlockPlan& block) {
    int count = 0;
    for (const NodeId n : block.graph->order()) {
      count += block.graph->node(n).op == &attention_grad_op &&
               block.graph->in(n, kAttentionGradOutput) != kNoValue;
    }
    return count;
  };
  Setting setting = kSlimFit;
  setting.codec = {"codec.edges=[\"attention_output:derive\"]", "codec.min_bytes=0"};
  const BlockPlan frozen(true, setting);
  CHECK(outputs_read(frozen) == 0);
  REQUIRE(frozen.sites.size() == 1);
  CHECK(frozen.sites[0].refused.empty());
  const BlockPlan trained(true, with_trained(setting, {"attention.output.dense.weight"}));
  CHECK(outputs_read(trained) == 0);
  REQUIRE(trained.sites.size() == 1);
  CHECK(trained.sites[0].refused.empty());
  CHECK(trained.estimate.bytes[static_cast<size_t>(MemoryClass::saved_activations)] == 0);
  // The next rule is for the other readers.
  setting.codec[0] = "codec.edges=[\"attention_output:derive\", \"linear_input:half\"]";
  const BlockPlan halved(true, with_trained(setting, {"attention.output.dense.weight"}));
  CHECK(outputs_read(halved) == 0);
  REQUIRE(halved.sites.size() == 2);
  CHECK(halved.sites[0].kind == "derive");
  CHECK(halved.sites[1].kind == "bf16");
  CHECK(halved.sites[1].refused.empty());
  CHECK(trained.saved - halved.saved ==
        -halved.estimate.bytes[static_cast<size_t>(MemoryClass::saved_activations)]);
  // A value that attention does not make.
  setting.codec[0] = "codec.edges=[\"gelu_input:derive\"]";
  const BlockPlan other(true, setting);
  REQUIRE(other.sites.size() == 1);
  CHECK(other.sites[0].refused.find("no output of fused attention") != std::string::npos);
}

TEST_CASE("half and quarter mean what a value's type makes of them") {
  const CodecFormat half("half", {}, "test");
  const CodecFormat quarter("quarter/32", {}, "test");
  CHECK(half.of(DType::f32).kind() == CodecFormat::Kind::cast);
  CHECK(half.of(DType::f32).bytes(DType::f32, {4, 64}) == 512);
  CHECK(half.of(DType::bf16).kind() == CodecFormat::Kind::keep);
  CHECK(half.of(DType::f16).kind() == CodecFormat::Kind::keep);
  CHECK(quarter.of(DType::f32).name() == "int8/32");
  CHECK(quarter.of(DType::f32).bytes(DType::f32, {4, 64}) == 4 * (64 + 2 * 2));
  CHECK(quarter.of(DType::bf16).name() == "int4/32");
  CHECK(quarter.of(DType::f16).bytes(DType::f16, {4, 64}) == 4 * (32 + 2 * 2));
  CHECK(CodecFormat("quarter", {}, "test").of(DType::f32).name() == "int8");
  CHECK_THROWS_AS(CodecFormat("quarters", {}, "test"), UsageError);
}

TEST_CASE("no full-size copy of a coded value lives between forward and its decoding") {
  for (const bool bert : {true, false}) {
    for (const Setting& base : {kOriginal, kSlimFit}) {
      Setting setting = base;
      setting.trained = {"output.dense.weight", "intermediate.dense.weight"};
      BlockPlan block(bert, setting);
      const Graph& g = *block.graph;
      std::vector<int> position(static_cast<size_t>(g.node_count()), -1);
      for (size_t p = 0; p < block.plan.order.size(); ++p) {
        position[static_cast<size_t>(block.plan.order[p])] = static_cast<int>(p);
      }
      const auto buffer = [&](ValueId v) {
        return block.plan.placement[static_cast<size_t>(v)].buffer;
      };
      std::map<std::string, const Site*> coded;
      for (const Site& site : block.sites) {
        CHECK(site.refused.empty());
        coded[site.path] = &site;
      }
      REQUIRE(coded.size() >= 6);
      CHECK(block.report.sites == static_cast<int64_t>(block.sites.size()));
      int proved = 0;
      for (const SavedValue& s : block.saved_before) {
        if (!coded.contains(g.name(s.value))) {
          continue;
        }
        CAPTURE(g.name(s.value));
        int last = position[static_cast<size_t>(g.value(s.value).producer)];
        bool shared = false;  // the buffer goes on with another value, made in place
        for (NodeId n : block.plan.order) {
          for (ValueId v : g.inputs(n)) {
            if (v != kNoValue && viewed(g, v) == s.value) {
              CHECK(g.node(n).phase == Phase::forward);
              last = std::max(last, position[static_cast<size_t>(n)]);
            }
          }
          for (ValueId v : g.outputs(n)) {
            shared = shared || (buffer(v) == buffer(s.value) && viewed(g, v) != s.value);
          }
        }
        if (!shared) {
          const Buffer& b = block.plan.buffers[static_cast<size_t>(buffer(s.value))];
          CHECK(b.last == last);
          CHECK(b.cls == MemoryClass::temporaries);
          ++proved;
        }
      }
      CHECK(proved >= 3);
      // A decoded copy is made right before its first reader and dies with its last. Between them
      // stand other decodings and views, and of nodes that compute no more than two.
      const auto decodes = [&](NodeId n) {
        const std::string_view op = g.node(n).op->name;
        return op == "fixed_point_decode" || op == "quantize_decode" || op == "top_k_grad" ||
               (op == "cast" && g.node(n).phase == Phase::backward);
      };
      int decodings = 0;
      for (size_t p = 0; p < block.plan.order.size(); ++p) {
        if (!decodes(block.plan.order[p])) {
          continue;
        }
        ++decodings;
        const ValueId copy = g.output(block.plan.order[p], 0);
        int computing = 0;
        int last = -1;  // how many stood before the last reader
        for (size_t q = p + 1; q < block.plan.order.size(); ++q) {
          const NodeId n = block.plan.order[q];
          if (decodes(n) || g.node(n).op->aliases[0].kind == Alias::view) {
            continue;
          }
          for (ValueId v : g.inputs(n)) {
            last = v != kNoValue && viewed(g, v) == copy ? computing : last;
          }
          ++computing;
        }
        CHECK(last >= 0);
        CHECK(last <= 2);
      }
      const auto restored = std::count_if(coded.begin(), coded.end(), [](const auto& site) {
        return site.second->kind != "derive" && site.second->kind != "regenerate";
      });
      CHECK(restored >= 6);
      CHECK(decodings >= restored);
      // And what is saved is what the pass said.
      Setting off = setting;
      off.codec.clear();
      const BlockPlan plain(bert, off);
      CHECK(block.saved - plain.saved ==
            block.estimate.bytes[static_cast<size_t>(MemoryClass::saved_activations)]);
    }
  }
}

TEST_CASE("the first rule that names a value is its own, and sites say why they are refused") {
  const BlockPlan block(true, {.codec = {"codec.edges=[\"query:keep\", \"attention:int8/row\", "
                                         "\"any:fp32\"]"}});
  int attention = 0;
  for (const Site& site : block.sites) {
    attention += site.kind == "int8/row" ? 1 : 0;
  }
  CHECK(attention == 2);
  const BlockPlan small(true, {.codec = {"codec.edges=any:int8", "codec.min_bytes=1000000000"}});
  REQUIRE_FALSE(small.sites.empty());
  for (const Site& site : small.sites) {
    CHECK(site.refused.find("fewer than min_bytes") != std::string::npos);
  }
  const BlockPlan grown(true, {.codec = {"codec.edges=any:top100%"}});
  for (const Site& site : grown.sites) {
    CHECK(site.refused.find("the value itself") != std::string::npos);
  }
  CHECK(grown.report.sites == 0);
  CHECK(grown.report.what.find("refused") != std::string::npos);
}

TEST_CASE("codecs refuse what names nothing, with the nearest name") {
  CHECK(message({"codec=on"}).find("nothing is chosen") != std::string::npos);
  CHECK(message({"codec.edges=gelu_inptu:int8"}).find("did you mean gelu_input") !=
        std::string::npos);
  CHECK(message({"codec.edges=gelu_input:int7"}).find("no codec") != std::string::npos);
  CHECK(message({"codec.edges=gelu_input:q3.3"}).find("no codec") != std::string::npos);
  CHECK(message({"codec.edges=gelu_input"}).find("role:codec") != std::string::npos);
  const std::string nearest = message({"codec.edges=vit.encoder.layer.1/geluu:int8"});
  CHECK(nearest.find("names no forward value") != std::string::npos);
  CHECK(nearest.find("vit.encoder.layer.1/gelu'") != std::string::npos);
  const PassManager passes = codec_passes({"codec.preset=slimfit"});
  CHECK_FALSE(passes.passes()[0]->invert({}).empty());
}

TEST_CASE("codec: off and none are the plain graph") {
  TinyRun plain;
  TinyRun off({"codec.preset=slimfit", "codec=off"});
  CHECK(off.experiment.update_step().plan.order.size() ==
        plain.experiment.update_step().plan.order.size());
  CHECK(off.experiment.update_step().passes.empty());
}
