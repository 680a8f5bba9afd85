// BERT's forward graph: inputs, limits and dropout.
#include <doctest/doctest.h>

#include <map>
#include <set>

#include "nn/bert_golden.h"
#include "tensor/ops/dropout.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

std::map<std::string, std::string> inputs_of(const Graph& g) {
  std::map<std::string, std::string> out;
  for (ValueId v : g.leaves()) {
    if (g.value(v).is_input) {
      out[g.name(v)] = fmt::format("{} {}", dtype_name(g.dtype(v)), g.shape(v));
    }
  }
  return out;
}

const nlohmann::json kDropout = {{"hidden_dropout_prob", 0.2},
                                 {"attention_probs_dropout_prob", 0.3},
                                 {"classifier_dropout", 0.4}};

}  // namespace

TEST_CASE("inputs are declared by name, labels by task") {
  const std::map<std::string, std::string> labels = {
      {"classification", fmt::format("int64 {}", Shape{6})},
      {"regression", fmt::format("fp32 {}", Shape{6})},
      {"span", fmt::format("int64 {}", Shape{2, 6})}};
  for (const auto& [task, wanted] : labels) {
    CAPTURE(task);
    const GoldenBert bert(task, kDropout);
    CHECK(bert.model->input_kind() == nn::InputKind::text);
    CHECK(bert.model->max_tokens() == 14);
    CHECK(bert.model->block_count() == 3);
    Graph g(bert.slots);
    const nn::ForwardOut out = bert.model->build(g, golden_options());
    const auto inputs = inputs_of(g);
    CHECK(inputs.size() == 5);
    CHECK(inputs.at("input_ids") == fmt::format("int64 {}", Shape{6, 12}));
    CHECK(inputs.at("token_type_ids") == fmt::format("int64 {}", Shape{6, 12}));
    CHECK(inputs.at("attention_mask") ==
          fmt::format("{} {}", dtype_name(DType::boolean), Shape{6, 12}));
    CHECK(inputs.at("rng") == fmt::format("int64 {}", Shape{2}));
    CHECK(inputs.at("labels").substr(inputs.at("labels").find(' ')) ==
          wanted.substr(wanted.find(' ')));
    CHECK(g.dtype(out.logits) == DType::f32);
    CHECK((out.correct != kNoValue) == (task == "classification"));
    CHECK(g.shape(out.hidden) == Shape{6, 12, 32});

    Graph inference(bert.slots);
    const nn::ForwardOut answers =
        bert.model->build(inference, {.batch = 1, .tokens = 14, .training = false, .loss = false});
    CHECK(answers.loss == kNoValue);
    CHECK(inputs_of(inference).size() == 3);  // neither labels nor rng
  }
}

TEST_CASE("texts that are too long and smoothing without classes are refused") {
  const GoldenBert span("span");
  for (int64_t tokens : {0, 15}) {
    Graph g(span.slots);
    CHECK_THROWS_AS(span.model->build(g, {.batch = 1, .tokens = tokens}), UsageError);
  }
  Graph g(span.slots);
  CHECK_THROWS_AS(span.model->build(g, {.batch = 1, .tokens = 4, .label_smoothing = 0.1}),
                  UsageError);
}

TEST_CASE("every dropout site has its own key and probability") {
  const GoldenBert bert("classification", kDropout);
  Graph g(bert.slots);
  (void)bert.model->build(g, golden_options());
  CHECK(unfuse_attention(g) == 3);
  std::map<double, int> sites;
  std::set<uint64_t> keys;
  for (NodeId n : g.order()) {
    if (g.node(n).op == &dropout_op) {
      ++sites[g.attr<DropoutAttrs>(n).p];
      keys.insert(g.attr<DropoutAttrs>(n).key);
    }
  }
  CHECK(sites == std::map<double, int>{{0.2, 7}, {0.3, 3}, {0.4, 1}});
  CHECK(keys.size() == 11);
}

TEST_CASE("fused and unfused attention draw the same masks") {
  std::vector<Tensor> results;
  for (bool unfused : {false, true}) {
    GoldenBert bert("classification", kDropout);
    const GoldenStep step(bert, golden_options(), unfused);
    results.push_back(step.read(step.out.logits));
    for (const ParameterGradient& p : step.grads) {
      if (step.g.name(p.parameter) == "bert.encoder.layer.0.attention.self.value.weight") {
        results.push_back(step.read(p.gradient));
      }
    }
    CHECK(relative_error(results[results.size() - 2], bert.file.read("logits")) > 0.01);
  }
  REQUIRE(results.size() == 4);
  CHECK(relative_error(results[0], results[2]) < 1e-5);
  CHECK(relative_error(results[1], results[3]) < 1e-4);
}
