// Gradients of whole tiny models in fp64 against central differences of their loss: what no test of
// an op alone can show, that the model's graph joins its ops' gradients rightly.
#include <doctest/doctest.h>

#include <cmath>

#include "nn/model_kinds.h"
#include "nn/twin.h"
#include "tensor/core/philox.h"
#include "tensor/graph/executor.h"
#include "tensor/graph/plan.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/fuse.h"
#include "tensor/ops/op_table.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

// A model whose weights are fp64, its step bound and fed.
struct TinyModel {
  explicit TinyModel(const nlohmann::json& config, int64_t tokens)
      : model(nn::make_model(slots, config)) {
    model->visit([&](const nn::Module& module) {
      for (const nn::Parameter& p : module.parameters()) {
        slots[p.slot].dtype = DType::f64;
        parameters.push_back(p.slot);
      }
    });
    graph = std::make_unique<Graph>(slots);
    Graph& g = *graph;
    const nn::ForwardOut out =
        model->build(g, {.batch = 3, .tokens = tokens, .training = true, .compute = DType::f64});
    loss = out.loss;
    g.mark_output(loss, "loss");
    fuse_residual_norms(g);
    fuse_parallel_linears(g);
    std::vector<ValueId> wanted;
    for (ValueId v : g.leaves()) {
      if (g.value(v).slot != kNoSlot) {
        wanted.push_back(v);
      }
    }
    found = gradients(g, loss, 1.0, wanted);
    for (const ParameterGradient& p : found) {
      g.mark_output(p.gradient, "grad." + g.name(p.parameter));
    }
    g.eliminate_dead();
    plan = make_plan(g, DeviceKind::cpu);
    executor = std::make_unique<Executor>(cpu_memory(), cpu_kernel, slots);
    program = executor->bind(g, plan);
    for (const SlotId s : parameters) {
      Tensor value = initial_value(slots, s, 5);
      // Away from the start, where biases are 0 and scales 1.
      auto values = value.as<double>();
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] += 0.2 * uniform01(philox(6, static_cast<uint64_t>(s), i).word[0]) - 0.1;
      }
      executor->write_slot(s, value);
    }
  }

  // Inputs share the arena with what comes after their last reader.
  void run() {
    for (ValueId v : graph->leaves()) {
      if (graph->value(v).is_input) {
        executor->write(program, v, fed(graph->name(v), graph->dtype(v), graph->shape(v)));
      }
    }
    executor->run(program);
  }

  // Loss, with one weight moved.
  double loss_at(SlotId slot, size_t i, double by) {
    Tensor value = executor->read_slot(slot);
    const Tensor before = executor->read_slot(slot);
    value.as<double>()[i] += by;
    executor->write_slot(slot, value);
    run();
    executor->write_slot(slot, before);
    return executor->read(program, loss).as<double>()[0];
  }

  static Tensor fed(const std::string& name, DType dtype, const Shape& shape) {
    Tensor out(DType::f64, shape);
    auto values = out.as<double>();
    for (size_t i = 0; i < values.size(); ++i) {
      const double u = uniform01(philox(9, name.size(), i).word[0]);
      values[i] = name == "rng"              ? static_cast<double>(11 + i)
                  : name == "attention_mask" ? (u < 0.8 || i % 5 == 0 ? 1 : 0)
                  : name == "pixels"         ? 2 * u - 1
                  : name == "input_ids"      ? std::floor(13 * u)
                                             : std::floor(2 * u);
    }
    return out.to(dtype);
  }

  SlotTable slots;
  std::unique_ptr<nn::Model> model;
  std::vector<SlotId> parameters;
  std::unique_ptr<Graph> graph;
  ValueId loss = kNoValue;
  std::vector<ParameterGradient> found;
  Plan plan;
  std::unique_ptr<Executor> executor;
  Program program;
};

void check_differences(TinyModel& tiny) {
  constexpr double kStep = 1e-5;
  tiny.run();
  std::vector<std::pair<SlotId, Tensor>> exact;
  for (const ParameterGradient& p : tiny.found) {
    exact.emplace_back(tiny.graph->value(p.parameter).slot,
                       tiny.executor->read(tiny.program, p.gradient));
  }
  CHECK(exact.size() == tiny.parameters.size());
  double worst = 0;
  for (const auto& [slot, gradient] : exact) {
    INFO(tiny.slots[slot].name);
    REQUIRE(gradient.dtype() == DType::f64);
    const auto values = gradient.as<double>();
    for (uint64_t draw = 0; draw < 4; ++draw) {
      const size_t i = philox(12, static_cast<uint64_t>(slot), draw).word[0] % values.size();
      const double difference =
          (tiny.loss_at(slot, i, kStep) - tiny.loss_at(slot, i, -kStep)) / (2 * kStep);
      const double error = std::abs(difference - values[i]) / (std::abs(values[i]) + 1e-3);
      worst = std::max(worst, error);
      CHECK(error < 1e-5);
    }
  }
  MESSAGE(fmt::format("{} parameters, worst error of a difference {:.2g}", exact.size(), worst));
}

}  // namespace

TEST_CASE("BERT's gradients are the differences of its loss, dropout and padding included") {
  TinyModel tiny({{"model_type", "bert"},
                  {"architectures", {"BertForSequenceClassification"}},
                  {"vocab_size", 13},
                  {"hidden_size", 12},
                  {"num_hidden_layers", 2},
                  {"num_attention_heads", 3},
                  {"intermediate_size", 20},
                  {"max_position_embeddings", 8},
                  {"type_vocab_size", 2},
                  {"hidden_dropout_prob", 0.1},
                  {"attention_probs_dropout_prob", 0.1},
                  {"layer_norm_eps", 1e-12},
                  {"num_labels", 2}},
                 7);
  check_differences(tiny);
}

TEST_CASE("ViT's gradients are the differences of its loss") {
  TinyModel tiny({{"model_type", "vit"},
                  {"image_size", 8},
                  {"patch_size", 4},
                  {"num_channels", 3},
                  {"hidden_size", 12},
                  {"num_hidden_layers", 2},
                  {"num_attention_heads", 3},
                  {"intermediate_size", 20},
                  {"hidden_dropout_prob", 0.0},
                  {"attention_probs_dropout_prob", 0.0},
                  {"layer_norm_eps", 1e-12},
                  {"num_labels", 2}},
                 0);
  check_differences(tiny);
}
