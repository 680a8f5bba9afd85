// The training loop: data in, steps, evaluation, logs and checkpoints.
#pragma once

#include <atomic>
#include <map>
#include <memory>

#include "data/loader.h"
#include "optim/schedule.h"
#include "report/run_folder.h"
#include "tensor/graph/executor.h"
#include "train/experiment.h"
#include "train/start_weights.h"
#include "train/training_data.h"

namespace lithe {

struct EvalResult {
  double loss = 0;
  NamedNumbers metrics;  // the main one first
  int64_t samples = 0;
};

class Trainer {
 public:
  // Plans for the longest text of `data` and allocates. Throws before allocating when the plan does
  // not fit (MemoryError, with the largest values and what would fit). Either start() or resume()
  // comes next.
  Trainer(Experiment& experiment, RunFolder& folder, std::shared_ptr<DeviceMemory> memory,
          TrainingData data);
  Trainer(const Trainer&) = delete;
  ~Trainer();

  // Begins at step 0 with these weights.
  void start(const StartWeights& weights);
  // Continues from the newest checkpoint of the run folder that can be read.
  void resume();
  // Runs to the end, or until `stop` becomes true; returns the summary of what was reached.
  RunSummary run(const std::atomic<bool>& stop);
  // Slots plus the highest byte of the arena that any step touched; -1 before run() has ended, or
  // when it had no step to do.
  int64_t measured_peak_bytes() const;

  // ---- pieces, for tests and benchmarks
  // One update on the given global step's batches; returns the mean loss.
  double step();
  EvalResult evaluate();
  Executor& executor() { return *executor_; }
  int64_t steps_done() const { return done_; }
  int64_t total_steps() const { return schedule_.steps; }

 private:
  void check_fits() const;
  // The graph of this shape, bound to the executor's memory.
  const Program& program(StepKind kind, const StepShape& shape);
  void forget_programs();
  int64_t update_batch() const;  // samples in one update
  void start_data();
  void feed(const StepGraph& step, const Program& program, const Batch& batch, int64_t micro,
            double lr);
  // Forward and the loss first, so that a loss that is not finite leaves the weights whole.
  double run_step(const StepGraph& step, const Program& program, const Batch& batch, int64_t micro,
                  double lr);
  [[noreturn]] void loss_not_finite(double loss, const Program& program, int end);
  [[noreturn]] void gradient_not_finite(const StepGraph& step);
  void save();

  Experiment& experiment_;
  RunFolder& folder_;
  std::shared_ptr<DeviceMemory> memory_;
  TrainingData data_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Loader> train_data_;
  std::unique_ptr<Loader> eval_data_;
  std::map<std::pair<StepKind, StepShape>, Program> programs_;
  Schedule schedule_;
  double peak_lr_ = 0;
  uint64_t seed_ = 0;
  int64_t done_ = 0;
  int64_t saved_at_ = -1;  // step of the newest checkpoint; -1: none of this run
  bool data_started_ = false;
  // Of the last step.
  double loss_ = 0;
  double correct_ = 0;
  double grad_norm_ = 0;
  double flops_ = 0;
  int64_t samples_ = 0;
  int64_t measured_arena_ = -1;
};

}  // namespace lithe
