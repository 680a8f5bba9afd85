// The training loop: data in, steps, evaluation, logs and checkpoints.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <tuple>

#include "data/loader.h"
#include "optim/schedule.h"
#include "report/profile.h"
#include "report/run_folder.h"
#include "tensor/graph/executor.h"
#include "train/experiment.h"
#include "train/start_weights.h"
#include "train/step_runner.h"
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
  // Before run(): measures this many updates kernel by kernel, from the fourth on.
  void profile(int64_t steps) { profile_steps_ = steps; }
  // What was measured; step_seconds is the median over all steps of the run.
  const StepProfile& profile() const { return profile_; }
  // Slots plus the highest byte of the arena that any step touched; on a device that works beside
  // the host, what its allocator gave out at most. -1 before run() has ended, or when it had no
  // step to do.
  int64_t measured_peak_bytes() const;

  // ---- pieces, for tests and benchmarks
  // One update, waited for; returns the mean loss.
  double step();
  EvalResult evaluate();
  Executor& executor() { return *executor_; }
  int64_t steps_done() const { return done_; }
  int64_t total_steps() const { return schedule_.steps; }

 private:
  // The graph of this shape, bound to the executor's memory.
  const Program& program(StepKind kind, const StepShape& shape);
  void forget_programs();
  // Lets the passes choose what the next update trains.
  void begin_step();
  int64_t update_batch() const;  // samples in one update
  void start_data();
  // Asks the device for one update.
  void launch_step();
  // Takes in what the device has done; with `all` waits for everything that was asked for.
  void collect(bool all);
  void save();

  Experiment& experiment_;
  RunFolder& folder_;
  std::shared_ptr<DeviceMemory> memory_;
  TrainingData data_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Loader> train_data_;
  std::unique_ptr<Loader> eval_data_;
  std::unique_ptr<StepRunner> runner_;
  std::map<std::tuple<int64_t, StepKind, StepShape>, Program> programs_;  // by choice first
  Schedule schedule_;
  double peak_lr_ = 0;
  uint64_t seed_ = 0;
  int64_t done_ = 0;
  int64_t saved_at_ = -1;  // step of the newest checkpoint; -1: none of this run
  bool data_started_ = false;
  StepNumbers partial_;               // of an update whose micro-batches are not all in
  std::deque<StepNumbers> finished_;  // updates that the loop has not looked at yet
  int64_t profile_steps_ = 0;
  int64_t launched_ = 0;  // updates of this process
  StepProfile profile_;
  int64_t profiled_choice_ = 0;
  int64_t measured_arena_ = -1;
};

}  // namespace lithe
