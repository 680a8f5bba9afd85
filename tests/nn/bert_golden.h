// The small BERTs of tests/reference/make_bert_golden.py, built and run.
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

#include "nn/model_kinds.h"
#include "nn/twin.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/fuse.h"
#include "tensor/ops/op_table.h"

namespace lithe::testing {

inline constexpr int64_t kGoldenBatch = 6;
inline constexpr int64_t kGoldenTokens = 12;

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

// Forward and backward of the golden step 0; the fused form also has the step's rewrites.
struct GoldenStep {
  GoldenStep(GoldenBert& bert, const nn::BuildOptions& options, bool unfused,
             const std::shared_ptr<DeviceMemory>& memory = cpu_memory())
      : g(bert.slots), executor(memory, kernel_lookup(memory->kind()), bert.slots) {
    out = bert.model->build(g, options);
    g.mark_output(out.logits, "logits");
    g.mark_output(out.loss, "loss");
    if (unfused) {
      CHECK(unfuse_attention(g) == bert.model->block_count());
    } else {
      fuse_residual_norms(g);
      // Converted weights are no leaves, and such layers stay apart.
      const bool leaves = bert.slots[bert.parameters[0]].dtype == g.dtype(out.hidden);
      CHECK(fuse_parallel_linears(g) == (leaves ? bert.model->block_count() : 0));
    }
    const std::vector<ValueId> wanted = trainable_leaves(g);
    grads = gradients(g, out.loss, 1.0, wanted);
    for (const ParameterGradient& p : grads) {
      g.mark_output(p.gradient, "grad." + g.name(p.parameter));
    }
    if (!unfused) {
      fuse_sums(g);
    }
    g.eliminate_dead();
    plan = make_plan(g, memory->kind());
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
