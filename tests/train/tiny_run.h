// A small ViT experiment for tests: recipe text, model, graphs and an executor on the CPU.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tensor/core/philox.h"
#include "tensor/graph/executor.h"
#include "tensor/ops/op_table.h"
#include "train/experiment.h"
#include "train/options.h"

namespace lithe::testing {

inline const char* const kTinyRecipe = R"(
name: tiny
seed: 3
model:
  type: vit
  vit: {image_size: 12, patch_size: 4, num_channels: 3, hidden_size: 32, num_hidden_layers: 3,
        num_attention_heads: 4, intermediate_size: 64, num_labels: 5, layer_norm_eps: 1.0e-12}
data: {kind: synthetic, synthetic_size: 64}
train: {batch_size: 6, steps: 4}
optimizer: {name: adamw, lr: 3.0e-3, weight_decay: 0.05,
            no_decay: ["*.bias", "*norm*.weight", "*cls_token", "*position_embeddings"]}
schedule: {name: constant}
eval: {every_steps: -1}
checkpoint: {final: false}
)";

inline recipe::Recipe tiny_recipe(const std::vector<std::string>& overrides = {}) {
  return recipe::Recipe::parse(kTinyRecipe, "tiny.yaml", train_options(), overrides);
}

// Random pixels and labels that depend on `step` only.
inline Tensor tiny_pixels(const Shape& shape, int64_t step) {
  Tensor pixels(DType::f32, shape);
  auto values = pixels.as<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 2 * uniform01(philox(7, static_cast<uint64_t>(step), i).word[0]) - 1;
  }
  return pixels;
}
inline Tensor tiny_labels(const Shape& shape, int64_t step) {
  Tensor labels(DType::i64, shape);
  auto classes = labels.as<int64_t>();
  for (size_t i = 0; i < classes.size(); ++i) {
    classes[i] = philox(8, static_cast<uint64_t>(step), i).word[0] % 5;
  }
  return labels;
}

// Weights and optimizer state, in the order of the slots.
inline std::vector<Tensor> read_slots(Executor& executor, Experiment& experiment) {
  std::vector<Tensor> out;
  for (SlotId s = 0; s < experiment.slots().size(); ++s) {
    out.push_back(executor.read_slot(s));
  }
  return out;
}

// An executor with initial weights and the experiment's update step bound.
struct TinyRun {
  explicit TinyRun(const std::vector<std::string>& overrides = {},
                   const std::shared_ptr<DeviceMemory>& memory = cpu_memory())
      : recipe(tiny_recipe(overrides)),
        experiment(recipe, memory->kind()),
        executor(memory, kernel_lookup(memory->kind()), experiment.slots()) {
    int64_t arena = 0;
    for (const StepGraph* step : experiment.steps()) {
      arena = std::max(arena, step->plan.arena_bytes);
    }
    executor.reserve_arena(arena);
    update = executor.bind(*experiment.update_step().graph, experiment.update_step().plan);
    for (SlotId s = 0; s < experiment.slots().size(); ++s) {
      executor.write_slot(s, initial_value(experiment.slots(), s, 3));
    }
  }

  void feed(const Program& program, const StepGraph& graph, int64_t step) {
    const ValueId pixels = graph.input("pixels");
    const ValueId labels = graph.input("labels");
    executor.write(program, pixels, tiny_pixels(graph.graph->shape(pixels), step));
    executor.write(program, labels, tiny_labels(graph.graph->shape(labels), step));
    if (graph.rng != kNoValue) {
      const std::array<int64_t, 2> rng = {11, step};
      executor.write(program, graph.rng, Tensor::from<int64_t>({2}, rng));
    }
    if (graph.lr != kNoValue) {
      const std::array<float, 1> lr = {3e-3f};
      executor.write(program, graph.lr, Tensor::from<float>({1}, lr));
    }
  }

  double step(int64_t index) {
    feed(update, experiment.update_step(), index);
    executor.run(update);
    return static_cast<double>(executor.read(update, experiment.update_step().loss).as<float>()[0]);
  }

  std::vector<Tensor> slots() { return read_slots(executor, experiment); }

  recipe::Recipe recipe;
  Experiment experiment;
  Executor executor;
  Program update;
};

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::equal(a.data(), a.data() + a.bytes(), b.data());
}

}  // namespace lithe::testing
