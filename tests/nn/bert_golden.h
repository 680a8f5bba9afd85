// The small BERTs of tests/reference/make_bert_golden.py, built and run on the CPU.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "nn/model_kinds.h"
#include "tensor/graph/executor.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/op_table.h"

namespace lithe::testing {

inline constexpr int64_t kGoldenBatch = 6;
inline constexpr int64_t kGoldenTokens = 12;

inline SafetensorsFile golden_file(std::string_view name) {
  return SafetensorsFile::open(
      fmt::format("{}/tests/golden/{}.safetensors", LITHE_SOURCE_DIR, name));
}

// |t| and |a - b| / scale, with |b| as the default scale; in fp64.
inline double norm(const Tensor& t) {
  const Tensor wide = t.to(DType::f64);
  double sum = 0;
  for (double v : wide.as<double>()) {
    sum += v * v;
  }
  return std::sqrt(sum);
}
inline double relative_error(const Tensor& a, const Tensor& b, double scale = 0) {
  REQUIRE(a.shape() == b.shape());
  const Tensor x = a.to(DType::f64);
  const Tensor y = b.to(DType::f64);
  double sum = 0;
  for (size_t i = 0; i < x.as<double>().size(); ++i) {
    sum += std::pow(x.as<double>()[i] - y.as<double>()[i], 2);
  }
  scale = scale > 0 ? scale : norm(b);
  return scale > 0 ? std::sqrt(sum) / scale : std::sqrt(sum);
}

// Row `index` of a stacked tensor [steps, ...].
inline Tensor row(const Tensor& stacked, int64_t index) {
  Shape shape;
  for (int i = 1; i < stacked.shape().rank(); ++i) {
    shape.push_back(stacked.shape()[i]);
  }
  Tensor out(stacked.dtype(), shape);
  std::copy_n(stacked.data() + index * out.bytes(), out.bytes(), out.data());
  return out;
}

struct GoldenBert {
  // `task` names a golden file: classification, regression or span; `fields` go over its config.
  explicit GoldenBert(std::string_view task_name, const nlohmann::json& fields = {})
      : task(task_name), small(golden_file("bert_small")), file(golden_file("bert_" + task)) {
    description = nlohmann::json::parse(file.metadata().at("golden"));
    config = description.at("config");
    if (!fields.is_null()) {
      config.update(fields);
    }
    model = nn::make_model(slots, config);
    model->visit([&](const nn::Module& module) {
      for (const nn::Parameter& p : module.parameters()) {
        parameters.push_back(p.slot);
      }
    });
  }

  const std::string& name(SlotId slot) const { return slots[slot].name; }
  // A parameter before training; the heads of the tasks share one file.
  Tensor initial(const std::string& parameter) const {
    const bool head = parameter.starts_with("classifier.") || parameter.starts_with("qa_outputs.");
    return small.read(head ? fmt::format("param.{}.{}", task, parameter) : "param." + parameter);
  }
  void load(Executor& executor) const {
    for (SlotId slot : parameters) {
      executor.write_slot(slot, initial(name(slot)).to(slots[slot].dtype));
    }
  }
  // An input of the graph at one of the golden steps.
  Tensor input(const std::string& input_name, int64_t step) const {
    return row(small.read(input_name == "labels" ? "input.labels." + task : "input." + input_name),
               step);
  }
  void feed(Executor& executor, const Program& program, int64_t step) const {
    const Graph& g = program.graph();
    for (ValueId v : g.leaves()) {
      const std::string leaf = g.name(v);
      if (!g.value(v).is_input || leaf == "lr") {
        continue;
      }
      if (leaf == "rng") {
        const std::array<int64_t, 2> rng = {11, step};
        executor.write(program, v, Tensor::from<int64_t>({2}, rng));
      } else {
        executor.write(program, v, input(leaf, step));
      }
    }
  }
  bool undetermined(const std::string& parameter) const {
    const auto& names = description.at("undetermined");
    return std::find(names.begin(), names.end(), parameter) != names.end();
  }

  std::string task;
  SafetensorsFile small;  // weights and inputs of all tasks
  SafetensorsFile file;   // results of this one
  nlohmann::json description;
  nlohmann::json config;
  SlotTable slots;
  std::unique_ptr<nn::Model> model;
  std::vector<SlotId> parameters;
};

inline std::vector<ValueId> trainable_leaves(const Graph& g) {
  std::vector<ValueId> out;
  for (ValueId v : g.leaves()) {
    const SlotId slot = g.value(v).slot;
    if (slot != kNoSlot && g.slots()[slot].trainable) {
      out.push_back(v);
    }
  }
  return out;
}

inline int unfuse_attention(Graph& g) {
  return expand(g, [](const Graph& graph, NodeId n) { return graph.node(n).op == &attention_op; });
}

// Forward and backward of the golden step 0.
struct GoldenStep {
  GoldenStep(GoldenBert& bert, const nn::BuildOptions& options, bool unfused)
      : g(bert.slots), executor(cpu_memory(), cpu_kernel, bert.slots) {
    out = bert.model->build(g, options);
    g.mark_output(out.logits, "logits");
    g.mark_output(out.loss, "loss");
    if (unfused) {
      CHECK(unfuse_attention(g) == bert.model->block_count());
    }
    const std::vector<ValueId> wanted = trainable_leaves(g);
    grads = gradients(g, out.loss, 1.0, wanted);
    for (const ParameterGradient& p : grads) {
      g.mark_output(p.gradient, "grad." + g.name(p.parameter));
    }
    g.eliminate_dead();
    plan = make_plan(g, DeviceKind::cpu);
    program = executor.bind(g, plan);
    bert.load(executor);
    bert.feed(executor, program, 0);
    executor.run(program);
  }
  Tensor read(ValueId v) const { return executor.read(program, v); }

  Graph g;
  nn::ForwardOut out;
  std::vector<ParameterGradient> grads;
  Plan plan;
  Executor executor;
  Program program;
};

inline nn::BuildOptions golden_options(DType compute = DType::f32) {
  return {.batch = kGoldenBatch, .tokens = kGoldenTokens, .training = true, .compute = compute};
}

}  // namespace lithe::testing
