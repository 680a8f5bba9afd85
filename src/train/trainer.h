// The training loop: data in, steps, evaluation, logs and checkpoints.
#pragma once

#include <atomic>
#include <memory>

#include "optim/schedule.h"
#include "report/run_folder.h"
#include "tensor/graph/executor.h"
#include "train/experiment.h"
#include "train/image_data.h"

namespace lithe {

struct EvalResult {
  double loss = 0;
  double accuracy = 0;  // share of right answers, 0..1
  int64_t samples = 0;
};

class Trainer {
 public:
  // Allocates, loads or draws the weights, opens the data. Throws before allocating when the plan
  // does not fit (MemoryError, with the largest values and what would fit).
  Trainer(Experiment& experiment, RunFolder& folder, std::shared_ptr<DeviceMemory> memory);
  Trainer(const Trainer&) = delete;
  ~Trainer();

  // Continues from the newest checkpoint of the run folder.
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
  struct Bound;

  void check_fits() const;
  void bind_graphs();
  int64_t update_batch() const;  // samples in one update
  void load_initial_weights();
  void feed(const StepGraph& step, const Program& program, const Batch& batch);
  void save();
  [[noreturn]] void not_finite() const;

  Experiment& experiment_;
  RunFolder& folder_;
  std::shared_ptr<DeviceMemory> memory_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Loader> train_data_;
  std::unique_ptr<Loader> eval_data_;
  std::unique_ptr<Bound> bound_;
  Schedule schedule_;
  double peak_lr_ = 0;
  uint64_t seed_ = 0;
  int64_t done_ = 0;
  int64_t saved_at_ = -1;  // step of the newest checkpoint; -1: none of this run
  bool started_ = false;
  // Of the last step.
  double loss_ = 0;
  double correct_ = 0;
  double grad_norm_ = 0;
  int64_t samples_ = 0;
  int64_t measured_arena_ = -1;
};

}  // namespace lithe
