#include "train/trainer.h"
#include "train/input_stage.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <nlohmann/json.hpp>

#include "report/progress.h"
#include "report/units.h"
#include "tensor/ops/op_table.h"
#include "train/checkpoint.h"
#include "train/export.h"
#include "train/fit.h"

namespace lithe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint8_t kArenaMark = 0xa5;
constexpr int64_t kProfileFrom = 3;  // updates that libraries load and kernels are recorded in

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  if (values.empty()) {
    return 0;
  }
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

int64_t batches_per_epoch(const Loader& data, int64_t accumulate) {
  return std::max<int64_t>(1, data.steps_per_epoch() / accumulate);
}

}  // namespace

Trainer::Trainer(Experiment& experiment, RunFolder& folder, std::shared_ptr<DeviceMemory> memory,
                 TrainingData data)
    : experiment_(experiment), folder_(folder), memory_(std::move(memory)), data_(std::move(data)) {
  const recipe::Recipe& recipe = experiment_.recipe();
  seed_ = static_cast<uint64_t>(recipe.integer("seed"));
  peak_lr_ = recipe.number("optimizer.lr");
  if (data_.longest > 0) {
    experiment_.limit_tokens(data_.longest);
  }
  check_fits(experiment_, *memory_);
  for (const std::string& line : data_.lines) {
    folder_.log().info("{}", line);
  }

  const StepOptions& options = experiment_.step_options();
  LoaderOptions loader;
  loader.batch_size = options.shape.batch;
  loader.seed = seed_;
  loader.shuffle = true;
  loader.drop_last = recipe.boolean("data.drop_last");
  loader.group_by_length = recipe.boolean("data.group_by_length");
  loader.threads = recipe.integer("data.threads");
  train_data_ = std::make_unique<Loader>(data_.train, loader);
  if (experiment_.has_eval()) {
    loader.batch_size = experiment_.eval_batch();
    loader.shuffle = false;
    loader.drop_last = false;
    eval_data_ = std::make_unique<Loader>(data_.eval, loader);
  }
  int64_t steps = recipe.integer("train.steps");
  if (steps == 0) {
    steps = std::max<int64_t>(
        1, recipe.integer("train.epochs") * train_data_->steps_per_epoch() / options.accumulate);
  }
  schedule_ = make_schedule(recipe.section("schedule"), steps);

  experiment_.passes().run_length(schedule_.steps);

  executor_ =
      std::make_unique<Executor>(memory_, kernel_lookup(memory_->kind()), experiment_.slots());
  runner_ = std::make_unique<StepRunner>(*executor_,
                                         input_stage_bytes(experiment_.steps(), memory_->kind()));
  forget_programs();
  executor_->mark_arena(kArenaMark);
  const DeviceRates rates = memory_->rates();
  profile_.bytes_per_s = rates.bytes_per_s;
  profile_.flops_per_s = options.compute != DType::f32 ? rates.flops_16_bit
                         : options.numerics.tf32       ? rates.flops_tf32
                                                       : rates.flops_fp32;
}

Trainer::~Trainer() = default;

void Trainer::forget_programs() {
  programs_.clear();
  for (const StepGraph* step : experiment_.steps()) {
    executor_->reserve_arena(step->plan.arena_bytes);
    executor_->reserve_host(step->plan.host_bytes);
  }
}

const Program& Trainer::program(StepKind kind, const StepShape& shape) {
  const std::tuple key(experiment_.choice(kind), kind, shape);
  const auto known = programs_.find(key);
  if (known != programs_.end()) {
    return known->second;
  }
  const StepGraph& step = experiment_.step(kind, shape);
  if (step.plan.arena_bytes > executor_->arena_bytes()) {
    // Placing buffers is a heuristic, so a smaller shape might just need more: then all move.
    folder_.log().warn("a step of {} samples needs an arena of {}, {} were planned", shape.batch,
                       format_bytes(step.plan.arena_bytes), format_bytes(executor_->arena_bytes()));
    collect(true);
    programs_.clear();
    executor_->reserve_arena(step.plan.arena_bytes);
  }
  return programs_.emplace(key, executor_->bind(*step.graph, step.plan)).first->second;
}

void Trainer::start(const StartWeights& weights) {
  for (const std::string& line : weights.lines()) {
    folder_.log().info("{}", line);
  }
  weights.write([&](SlotId slot, const Tensor& value) { executor_->write_slot(slot, value); });
}

void Trainer::start_data() {
  const int64_t accumulate = experiment_.step_options().accumulate;
  const int64_t first = done_ * accumulate;
  const int64_t per_epoch = train_data_->steps_per_epoch();
  train_data_->start(first / per_epoch, first % per_epoch, (schedule_.steps - done_) * accumulate);
  data_started_ = true;
}

void Trainer::begin_step() {
  const PassManager& passes = experiment_.passes();
  const UnitSchedule* schedule = passes.schedule();
  if (schedule != nullptr && schedule->metric != ChangeMetric::none && schedule->lag == 0) {
    collect(true);  // what the step before did is to be known
  }
  if (!passes.on(PassEvent::step_begin, done_)) {
    return;
  }
  if (schedule == nullptr) {
    collect(true);  // graphs and programs of open steps must stay
    experiment_.plan_graphs();
    forget_programs();
  } else if (const auto gone = experiment_.take_choice()) {
    std::erase_if(programs_, [&](const auto& entry) { return std::get<0>(entry.first) == *gone; });
  }
}

void Trainer::launch_step() {
  const int64_t accumulate = experiment_.step_options().accumulate;
  if (!data_started_) {
    start_data();
  }
  begin_step();
  for (int64_t micro = 0; micro < accumulate; ++micro) {
    const Batch* batch = train_data_->next();
    if (batch == nullptr) {
      throw UsageError("train", "the data ended at step {} of {}", done_, schedule_.steps);
    }
    const StepKind kind = micro + 1 == accumulate ? StepKind::update : StepKind::accumulate;
    const StepShape shape{batch->count(), batch->tokens};
    const StepGraph& step = experiment_.step(kind, shape);
    // All of one plan: of the largest shape, and where units are scheduled of one choice.
    const bool profiles = launched_ >= kProfileFrom && profile_.steps < profile_steps_ &&
                          (profile_.steps == 0 || profiled_choice_ == experiment_.choice(kind)) &&
                          &step == &experiment_.update_step();
    runner_->launch(step, program(kind, shape), *batch,
                    {.step = done_,
                     .seed = seed_,
                     .draw = done_ * accumulate + micro,  // each micro-batch has its own masks
                     .lr = peak_lr_ * schedule_.factor(done_),
                     .profile = profiles});
    if (profiles) {
      add_step(profile_, *step.graph, step.plan, runner_->profiled());
      profiled_choice_ = experiment_.choice(kind);
    }
    collect(false);
  }
  ++launched_;
  (void)experiment_.passes().on(PassEvent::step_end, done_);
  ++done_;
}

void Trainer::collect(bool all) {
  while (runner_->open() > (all ? 0 : runner_->ahead())) {
    const StepNumbers numbers = *runner_->collect();
    const auto share = static_cast<double>(experiment_.step_options().accumulate);
    partial_.loss += numbers.loss / share;
    partial_.correct += numbers.correct;
    partial_.samples += numbers.samples;
    partial_.flops += numbers.flops;
    if (numbers.updates) {
      partial_.step = numbers.step;
      partial_.lr = numbers.lr;
      partial_.grad_norm = numbers.grad_norm;
      experiment_.passes().measured(numbers.step, numbers.lr, numbers.changes);
      finished_.push_back(std::exchange(partial_, StepNumbers{}));
    }
  }
}

double Trainer::step() {
  launch_step();
  collect(true);
  const double loss = finished_.back().loss;
  finished_.clear();
  return loss;
}

EvalResult Trainer::evaluate() {
  EvalResult out;
  if (!eval_data_) {
    return out;
  }
  const std::unique_ptr<Evaluation> evaluation = data_.evaluation();
  Progress progress = Progress::evaluation(eval_data_->steps_per_epoch());
  double loss_sum = 0;
  int64_t batches = 0;
  eval_data_->start(0, 0, eval_data_->steps_per_epoch());
  while (const Batch* batch = eval_data_->next()) {
    const StepShape shape{batch->count(), batch->tokens};
    const StepGraph& step = experiment_.step(StepKind::eval, shape);
    const Program& bound = program(StepKind::eval, shape);
    runner_->feed(step, bound, *batch);
    executor_->run(bound);
    const Tensor loss = executor_->read(bound, step.loss).to(DType::f64);
    loss_sum += loss.as<double>()[0] * static_cast<double>(batch->count());
    evaluation->add(*batch, executor_->read(bound, step.logits).to(DType::f32));
    out.samples += batch->count();
    progress.update(++batches, batch->count(), loss_sum / static_cast<double>(out.samples));
  }
  out.loss = loss_sum / static_cast<double>(std::max<int64_t>(1, out.samples));
  out.metrics = evaluation->result();
  return out;
}

void Trainer::resume() {
  const auto loaded = load_newest_checkpoint(
      folder_.path() / "checkpoints", experiment_.slots(),
      [&](SlotId slot, const Tensor& value) { executor_->write_slot(slot, value); });
  if (!loaded) {
    throw FileError("resume", "{} holds no complete checkpoint; start without --resume",
                    (folder_.path() / "checkpoints").string());
  }
  for (const std::string& why : loaded->damaged) {
    folder_.log().warn("{}", why);
  }
  const CheckpointState& state = loaded->state;
  if (state.seed != seed_) {
    throw UsageError("resume",
                     "the checkpoint was made with seed {}, the recipe has {}; use the same",
                     state.seed, seed_);
  }
  if (state.step > schedule_.steps) {
    throw UsageError("resume",
                     "the checkpoint is at step {}, the recipe ends at {}; raise train.steps",
                     state.step, schedule_.steps);
  }
  if (state.batch != update_batch()) {
    throw UsageError("resume",
                     "the checkpoint was made with {} samples in an update, the recipe has {} "
                     "(train.batch_size x train.accumulate); use the same",
                     state.batch, update_batch());
  }
  if (state.samples != data_.train->size()) {
    throw UsageError("resume",
                     "the checkpoint was made with {} training samples, the data now has {}; use "
                     "the same data",
                     state.samples, data_.train->size());
  }
  experiment_.passes().restore(state.passes);
  done_ = saved_at_ = state.step;
  data_started_ = false;
  folder_.resume_at(done_);
  folder_.log().info("resumed from {} at step {}", loaded->path.string(), done_);
}

int64_t Trainer::update_batch() const {
  return experiment_.step_options().shape.batch * experiment_.step_options().accumulate;
}

void Trainer::save() {
  folder_.sync_metrics();
  save_checkpoint(
      folder_.path() / "checkpoints",
      {.step = done_,
       .seed = seed_,
       .batch = update_batch(),
       .samples = data_.train->size(),
       .passes = experiment_.passes().state()},
      experiment_.slots(), [&](SlotId slot) { return executor_->read_slot(slot); },
      experiment_.recipe().integer("checkpoint.keep"));
  saved_at_ = done_;
}

RunSummary Trainer::run(const std::atomic<bool>& stop) {
  const recipe::Recipe& recipe = experiment_.recipe();
  const int64_t every = recipe.integer("checkpoint.every_steps");
  const int64_t eval_every = recipe.integer("eval.every_steps");
  const int64_t steps_per_epoch =
      batches_per_epoch(*train_data_, experiment_.step_options().accumulate);
  const auto started = Clock::now();
  double eval_seconds = 0;
  std::vector<double> step_seconds;
  double last_loss = 0;
  double train_seconds = 0;
  double train_samples = 0;
  double train_flops = 0;
  EvalResult eval;
  int64_t evaluated_at = -1;
  const auto evaluate_now = [&] {
    const auto begin = Clock::now();
    eval = evaluate();
    eval_seconds += seconds_since(begin);
    evaluated_at = done_;
    NamedNumbers line = {{"eval_loss", eval.loss}};
    std::string text;
    for (const auto& [name, value] : eval.metrics) {
      line.emplace_back("eval_" + name, value);
      text += fmt::format(", {} {:.4f}", name, value);
    }
    folder_.append_metrics({done_, line});
    folder_.log().info("step {}: eval loss {:.4f}{}", done_, eval.loss, text);
  };

  Progress progress(schedule_.steps, done_);
  auto last = Clock::now();
  const auto log_finished = [&] {
    const double seconds = seconds_since(last) / static_cast<double>(finished_.size());
    last = Clock::now();
    for (const StepNumbers& n : finished_) {
      step_seconds.push_back(seconds);
      train_seconds += seconds;
      train_samples += static_cast<double>(n.samples);
      train_flops += n.flops;
      last_loss = n.loss;
      MetricLine line{n.step + 1, {{"loss", n.loss}, {"lr", n.lr}, {"grad_norm", n.grad_norm}}};
      if (experiment_.model().task() == nn::Task::classification) {
        line.values.emplace_back("accuracy", n.correct / static_cast<double>(n.samples));
      }
      line.values.emplace_back("samples_per_s", static_cast<double>(n.samples) / seconds);
      line.values.emplace_back("tflops", n.flops / seconds * 1e-12);
      line.values.emplace_back("peak_bytes", static_cast<double>(memory_->peak_bytes()));
      folder_.append_metrics(line);
      progress.update(n.step + 1, n.samples, n.loss);
    }
    finished_.clear();
  };
  bool interrupted = false;
  while (done_ < schedule_.steps && !interrupted) {
    launch_step();
    interrupted = stop.load();
    const bool at_end = done_ == schedule_.steps;
    const bool evaluates =
        !interrupted && eval_data_ &&
        (at_end || (eval_every > 0 ? done_ % eval_every == 0 : done_ % steps_per_epoch == 0));
    const bool saves = interrupted || (every > 0 && done_ % every == 0 && !at_end);
    collect(evaluates || saves || at_end);
    if (!finished_.empty()) {
      log_finished();
    }
    if (evaluates) {
      progress.finish();
      evaluate_now();
    }
    if (saves) {
      save();
    }
    if (evaluates || saves) {
      last = Clock::now();
    }
  }
  progress.finish();
  if (interrupted) {
    throw Interrupted("train", "stopped after step {} of {}; go on with --resume", done_,
                      schedule_.steps);
  }
  if (eval_data_ && evaluated_at != done_) {
    evaluate_now();  // resumed at the very end
  }
  if (!step_seconds.empty()) {
    measured_arena_ = executor_->touched_arena_bytes(kArenaMark);
  }
  if (recipe.boolean("checkpoint.final")) {
    if (saved_at_ != done_) {
      save();
    }
    const auto get = [&](SlotId slot) { return executor_->read_slot(slot); };
    if (!experiment_.passes().write_files(
            {.model = experiment_.model(),
             .folder = folder_.path(),
             .base = recipe.has("model.path") ? recipe.string("model.path") : std::string(),
             .get = get})) {
      export_model(experiment_, folder_.path() / "model", get);
    }
  }

  RunSummary summary;
  summary.status = "finished";
  summary.device = memory_->description();
  summary.seed = seed_;
  summary.metrics = {{"steps", static_cast<double>(done_)}};
  if (!step_seconds.empty()) {
    summary.metrics.emplace_back("loss", last_loss);
  }
  if (eval_data_) {
    summary.metrics.emplace_back("eval_loss", eval.loss);
    summary.metrics.insert(summary.metrics.end(), eval.metrics.begin(), eval.metrics.end());
  }
  summary.times = {{"total_s", seconds_since(started)}, {"eval_s", eval_seconds}};
  // A run that was resumed at its end has no steps to speak of.
  if (const double step_median = median(step_seconds); step_median > 0) {
    profile_.step_seconds = step_median;
    summary.metrics.emplace_back("samples_per_s", train_samples / train_seconds);
    summary.metrics.emplace_back("tflops", train_flops / train_seconds * 1e-12);
    summary.times.emplace_back("step_ms_median", 1e3 * step_median);
  }
  return summary;
}

int64_t Trainer::measured_peak_bytes() const {
  if (measured_arena_ < 0) {
    return -1;
  }
  // Libraries need not write all of the workspace that was planned for them: there the allocator's
  // own count is what was really taken.
  return memory_->asynchronous() ? memory_->peak_bytes()
                                 : executor_->slot_block_bytes() + measured_arena_;
}

}  // namespace lithe
