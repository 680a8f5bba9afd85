// Feeds batches to planned steps and hands their numbers back. A device that works beside the host
// is kept one step ahead: inputs go through pinned memory into a block of the device while the step
// before them runs (or behind it, see input_stage.h), and a step's loss is read while the next one
// runs, so nothing on the way waits.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "data/batch.h"
#include "tensor/graph/executor.h"
#include "train/step_graph.h"

namespace lithe {

// What a step is run with besides its batch.
struct StepInputs {
  int64_t step = 0;   // the update that it is part of, from 0
  uint64_t seed = 0;  // with `draw`, the counter of the dropout masks
  int64_t draw = 0;
  double lr = 0;
  bool profile = false;  // measure each kernel; see StepRunner::profiled
};

struct StepNumbers {
  int64_t step = 0;
  bool updates = false;  // false: only gradients were accumulated
  double lr = 0;
  double loss = 0;  // mean over the batch
  double correct = 0;
  double grad_norm = 0;  // of an update
  double flops = 0;
  int64_t samples = 0;
  std::vector<UnitChange> changes;  // of an update, where a schedule asks for them
};

class StepRunner {
 public:
  // `input_bytes`: input_stage_bytes of the steps to come.
  StepRunner(Executor& executor, int64_t input_bytes);

  // Starts a training step; graph and program stay alive until its numbers are collected. At most
  // kAhead may be open. Throws NumericalError for a loss that is not finite: on a device that works
  // at once the first value that went wrong is named, and the weights are those before the step.
  void launch(const StepGraph& step, const Program& program, const Batch& batch,
              const StepInputs& inputs);
  // Of the oldest open step, once it is done; nothing where none is open. Throws NumericalError
  // when loss or gradients are not finite.
  std::optional<StepNumbers> collect();
  // Seconds by position of the step that was last launched with `profile`
  // (Executor::run_profiled).
  const std::vector<double>& profiled() const { return profiled_; }
  int64_t open() const { return static_cast<int64_t>(open_.size()); }
  // Steps that may be open without making the device wait.
  int64_t ahead() const { return executor_.memory().asynchronous() ? kAhead : 0; }

  // Writes the data's inputs of a step that is not for training.
  void feed(const StepGraph& step, const Program& program, const Batch& batch);

 private:
  static constexpr int64_t kAhead = 1;

  struct Open {
    const StepGraph* step;
    StepNumbers numbers;
    size_t stage;
    int64_t mark;
  };

  void write(const StepGraph& step, const Program& program, const Batch& batch,
             const StepInputs& inputs, HostBlock& stage);
  void run_checked(const StepGraph& step, const Program& program, const Batch& batch,
                   const StepInputs& inputs, HostBlock& stage);
  [[noreturn]] void gradient_not_finite(const StepGraph& step, const StepNumbers& numbers) const;

  Executor& executor_;
  Block input_stage_;  // on the device; empty where inputs go straight to their places
  // Pinned memory of the open steps: results, then inputs.
  std::vector<HostBlock> stages_ = std::vector<HostBlock>(kAhead + 1);
  size_t next_stage_ = 0;
  std::deque<Open> open_;
  std::vector<double> profiled_;
};

}  // namespace lithe
