// The graphs of a training run: one update, one micro-batch of accumulation, one evaluation batch.
// Each is built from the model, rewritten by the passes, verified and planned; none needs weights
// or a device.
#pragma once

#include <memory>
#include <vector>

#include "nn/model.h"
#include "optim/optimizer.h"
#include "tensor/graph/pass.h"
#include "tensor/graph/plan.h"

namespace lithe {

struct StepOptions {
  int64_t batch = 1;
  int64_t accumulate = 1;  // micro-batches in one update
  double clip_norm = 0;    // 0: no clipping, the norm is still reported
  double label_smoothing = 0;
  bool unfused_attention = false;
};

// A planned graph with the values that the loop writes and reads (kNoValue: not in this graph).
struct StepGraph {
  std::unique_ptr<Graph> graph;
  Plan plan;
  ValueId pixels = kNoValue;
  ValueId labels = kNoValue;
  ValueId rng = kNoValue;
  ValueId lr = kNoValue;
  ValueId loss = kNoValue;
  ValueId correct = kNoValue;
  ValueId grad_norm = kNoValue;
  std::vector<std::string> preview;  // what the graph passes were about to change
  std::vector<PassReport> passes;
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

// Forward, backward and update; with accumulation it adds what the slots hold and clears them.
StepGraph build_update_step(const StepContext& context, const Optimizer& optimizer,
                            const StepOptions& options);
// Forward, backward, and the gradients added to their slots.
StepGraph build_accumulate_step(const StepContext& context, const StepOptions& options);
// Forward only.
StepGraph build_eval_step(const StepContext& context, const StepOptions& options);

}  // namespace lithe
