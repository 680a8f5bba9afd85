// The graphs of a training run: one update, one micro-batch of accumulation, one evaluation batch.
// Each is built from the model, rewritten by the passes, verified and planned; none needs weights
// or a device.
#pragma once

#include <compare>
#include <memory>
#include <string_view>
#include <vector>

#include "nn/model.h"
#include "optim/optimizer.h"
#include "tensor/graph/pass.h"
#include "tensor/graph/plan.h"

namespace lithe {

enum class StepKind : uint8_t { update, accumulate, eval };

// What a graph is built for: the last batch of an epoch may be smaller, and batches of text are as
// long as their longest sample.
struct StepShape {
  int64_t batch = 1;
  int64_t tokens = 0;                                  // 0: not text
  auto operator<=>(const StepShape&) const = default;  // NOLINT(modernize-use-nullptr)
};

struct StepOptions {
  StepShape shape;         // the largest of the run
  int64_t accumulate = 1;  // micro-batches in one update
  double clip_norm = 0;    // 0: no clipping, the norm is still reported
  double label_smoothing = 0;
  bool unfused_attention = false;
  bool value_dropout = false;  // attention drops values, not probabilities
  bool fuse = true;            // rewrite chains of ops into fused ones
  Numerics numerics;
  DType compute = DType::f32;  // nn::BuildOptions::compute
};

// A planned graph with the values that the loop writes and reads (kNoValue: not in this graph).
struct StepGraph {
  StepShape shape;
  std::unique_ptr<Graph> graph;
  Plan plan;
  double flops = 0;
  int loss_end = 0;  // position behind the loss: no node before it changes a slot
  std::vector<std::pair<std::string, ValueId>> inputs;  // of the data: "pixels", "labels", ...
  ValueId rng = kNoValue;
  ValueId lr = kNoValue;
  ValueId loss = kNoValue;
  ValueId logits = kNoValue;  // evaluation only
  ValueId correct = kNoValue;
  ValueId grad_norm = kNoValue;
  std::vector<std::pair<SlotId, ValueId>> changes;  // of each scheduled unit that is trained
  std::vector<std::string> preview;                 // what the graph passes were about to change
  std::vector<PassReport> passes;

  // The data's input of that name; throws GraphError naming those there are.
  ValueId input(std::string_view name) const;
};

// What every builder needs; the references must outlive the call only.
struct StepContext {
  nn::Model& model;
  SlotTable& slots;
  const PassManager& passes;
  DeviceKind device = DeviceKind::cpu;
};

// Adds the optimizer's state and, with accumulation, a gradient slot for each trainable parameter.
// Once, after the model passes and before any graph is built.
void add_training_slots(SlotTable& slots, const nn::Model& model, Optimizer& optimizer,
                        int64_t accumulate);

// Of options.shape. An update is forward, backward and the optimizer; with accumulation it adds
// what the slots hold and clears them. An accumulate step adds its gradients to the slots. An
// evaluation step is forward only.
StepGraph build_step(const StepContext& context, const Optimizer& optimizer,
                     const StepOptions& options, StepKind kind);

}  // namespace lithe
