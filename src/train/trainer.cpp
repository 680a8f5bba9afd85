#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <nlohmann/json.hpp>

#include "nn/pretrained.h"
#include "report/progress.h"
#include "report/units.h"
#include "tensor/core/glob.h"
#include "tensor/ops/op_table.h"
#include "train/checkpoint.h"

namespace lithe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint8_t kArenaMark = 0xa5;

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

double graph_flops(const StepGraph* step) {
  double sum = 0;
  if (step != nullptr) {
    const Graph& g = *step->graph;
    for (NodeId n = g.first(); n != kNoNode; n = g.next(n)) {
      const OpDef& op = *g.node(n).op;
      sum += op.flops == nullptr ? 0 : op.flops(g, n);
    }
  }
  return sum;
}

ImageTarget image_target(const nn::Model& model) {
  const nlohmann::json config = model.config();
  return {.size = config.at("image_size").get<int64_t>(),
          .channels = config.at("num_channels").get<int64_t>(),
          .classes = static_cast<int64_t>(config.at("id2label").size())};
}

std::string join_names(const std::vector<std::string>& names) {
  constexpr size_t kShown = 5;
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size()));
  return fmt::format("{}{}", fmt::join(names.begin(), end, ", "),
                     names.size() > kShown ? ", ..." : "");
}

}  // namespace

// Programs point into the graphs of the experiment and the memory of the executor.
struct Trainer::Bound {
  Program update;
  Program accumulate;
  Program eval;
};

Trainer::Trainer(Experiment& experiment, RunFolder& folder, std::shared_ptr<DeviceMemory> memory)
    : experiment_(experiment), folder_(folder), memory_(std::move(memory)) {
  const recipe::Recipe& recipe = experiment_.recipe();
  seed_ = static_cast<uint64_t>(recipe.integer("seed"));
  peak_lr_ = recipe.number("optimizer.lr");
  check_fits();

  const ImageTarget target = image_target(experiment_.model());
  const StepOptions& options = experiment_.step_options();
  train_data_ = make_image_loader(recipe.section("data"), target, true, options.batch, seed_);
  if (experiment_.eval_step() != nullptr) {
    eval_data_ =
        make_image_loader(recipe.section("data"), target, false, experiment_.eval_batch(), seed_);
  }
  schedule_.kind = schedule_from_name(recipe.string("schedule.name"));
  schedule_.steps = recipe.integer("train.steps");
  if (schedule_.steps == 0) {
    schedule_.steps = std::max<int64_t>(
        1, recipe.integer("train.epochs") * train_data_->steps_per_epoch() / options.accumulate);
  }
  schedule_.warmup = recipe.integer("schedule.warmup_steps");
  if (schedule_.warmup == 0) {
    schedule_.warmup = static_cast<int64_t>(recipe.number("schedule.warmup_ratio") *
                                            static_cast<double>(schedule_.steps));
  }

  executor_ =
      std::make_unique<Executor>(memory_, kernel_lookup(memory_->kind()), experiment_.slots());
  bound_ = std::make_unique<Bound>();
  bind_graphs();
  load_initial_weights();
  executor_->mark_arena(kArenaMark);
}

Trainer::~Trainer() = default;

void Trainer::bind_graphs() {
  int64_t arena = 0;
  for (const StepGraph* step : experiment_.steps()) {
    arena = std::max(arena, step->plan.arena_bytes);
  }
  executor_->reserve_arena(arena);
  const auto bind = [&](const StepGraph& step) { return executor_->bind(*step.graph, step.plan); };
  bound_->update = bind(experiment_.update_step());
  if (experiment_.accumulate_step() != nullptr) {
    bound_->accumulate = bind(*experiment_.accumulate_step());
  }
  if (experiment_.eval_step() != nullptr) {
    bound_->eval = bind(*experiment_.eval_step());
  }
}

void Trainer::check_fits() const {
  // Without the pass table, for which other graphs would be built.
  const MemoryReport report = memory_report(experiment_.slots(), experiment_.steps());
  const int64_t available = memory_->available_bytes();
  if (report.predicted_peak_bytes <= available) {
    return;
  }
  std::string largest;
  for (const PlannedValue* v : largest_at_peak(report, 3)) {
    largest += fmt::format("{}{} {}", largest.empty() ? "" : ", ", v->name, format_bytes(v->bytes));
  }
  throw MemoryError(
      "memory",
      "the run needs {}, {} has {} free; the largest values at the peak are {}; switch on "
      "recompute, freeze more, or lower train.batch_size",
      format_bytes(report.predicted_peak_bytes), memory_->description(), format_bytes(available),
      largest);
}

void Trainer::load_initial_weights() {
  SlotTable& slots = experiment_.slots();
  for (SlotId s = 0; s < slots.size(); ++s) {
    executor_->write_slot(s, initial_value(slots[s], seed_));
  }
  const recipe::Recipe model = experiment_.recipe().section("model");
  if (model.string("weights") != "pretrained") {
    return;
  }
  if (!model.has("path")) {
    throw UsageError("model.weights", "{}: pretrained weights need model.path",
                     model.where("weights"));
  }
  const SafetensorsFolder weights = SafetensorsFolder::open(model.string("path"));
  const nn::NameMatch match = nn::match_names(experiment_.model(), weights);
  const std::vector<std::string> reinit = model.strings("reinit");
  const auto drawn_anew = [&](const std::string& name) {
    return std::any_of(reinit.begin(), reinit.end(),
                       [&](const std::string& pattern) { return glob_match(pattern, name); });
  };
  std::vector<std::string> missing = match.missing;
  std::erase_if(missing, drawn_anew);
  folder_.log().info("weights: {} matched, {} missing, {} unexpected in {}", match.matched.size(),
                     match.missing.size(), match.unexpected.size(), model.string("path"));
  if (!missing.empty()) {
    throw FileError(
        "weights",
        "{} lacks {} of the model's tensors ({}); name those that shall be drawn anew in "
        "model.reinit",
        model.string("path"), missing.size(), join_names(missing));
  }
  if (!match.unexpected.empty() && !model.boolean("allow_unexpected")) {
    throw FileError(
        "weights",
        "{} has {} tensors that the model lacks ({}); allow them with model.allow_unexpected=true",
        model.string("path"), match.unexpected.size(), join_names(match.unexpected));
  }
  std::vector<std::string> wanted = match.matched;
  std::erase_if(wanted, drawn_anew);
  nn::load_weights(experiment_.model(), weights, wanted,
                   [&](SlotId slot, const Tensor& value) { executor_->write_slot(slot, value); });
}

void Trainer::feed(const StepGraph& step, const Program& program, const Batch& batch) {
  executor_->write(program, step.pixels, batch.images);
  executor_->write(program, step.labels, batch.labels);
}

double Trainer::step() {
  const StepOptions& options = experiment_.step_options();
  if (!started_) {
    const int64_t first = done_ * options.accumulate;
    const int64_t per_epoch = train_data_->steps_per_epoch();
    train_data_->start(first / per_epoch, first % per_epoch,
                       (schedule_.steps - done_) * options.accumulate);
    started_ = true;
  }
  if (experiment_.passes().on(PassEvent::step_begin, done_)) {
    experiment_.plan_graphs();
    bind_graphs();
  }
  const double lr = peak_lr_ * schedule_.factor(done_);
  loss_ = 0;
  correct_ = 0;
  samples_ = 0;
  for (int64_t micro = 0; micro < options.accumulate; ++micro) {
    const bool last = micro + 1 == options.accumulate;
    const StepGraph& step = last ? experiment_.update_step() : *experiment_.accumulate_step();
    const Program& program = last ? bound_->update : bound_->accumulate;
    const Batch* batch = train_data_->next();
    if (batch == nullptr) {
      throw UsageError("train", "the data ended at step {} of {}", done_, schedule_.steps);
    }
    feed(step, program, *batch);
    if (step.rng != kNoValue) {
      // Each micro-batch draws its own masks.
      const std::array<int64_t, 2> rng = {static_cast<int64_t>(seed_),
                                          done_ * options.accumulate + micro};
      executor_->write(program, step.rng, Tensor::from<int64_t>({2}, rng));
    }
    if (last) {
      const std::array<float, 1> rate = {static_cast<float>(lr)};
      executor_->write(program, step.lr, Tensor::from<float>({1}, rate));
    }
    executor_->run(program);
    loss_ += executor_->read(program, step.loss).to(DType::f64).as<double>()[0] /
             static_cast<double>(options.accumulate);
    correct_ += static_cast<double>(executor_->read(program, step.correct).as<int64_t>()[0]);
    samples_ += batch->count;
    if (last) {
      grad_norm_ = executor_->read(program, step.grad_norm).to(DType::f64).as<double>()[0];
    }
  }
  (void)experiment_.passes().on(PassEvent::step_end, done_);
  ++done_;
  return loss_;
}

EvalResult Trainer::evaluate() {
  EvalResult out;
  const StepGraph* step = experiment_.eval_step();
  if (step == nullptr) {
    return out;
  }
  double loss_sum = 0;
  double correct = 0;
  eval_data_->start(0, 0, eval_data_->steps_per_epoch());
  while (const Batch* batch = eval_data_->next()) {
    feed(*step, bound_->eval, *batch);
    executor_->run(bound_->eval);
    const Tensor loss = executor_->read(bound_->eval, step->loss).to(DType::f64);
    loss_sum += loss.as<double>()[0] * static_cast<double>(batch->count);
    correct += static_cast<double>(executor_->read(bound_->eval, step->correct).as<int64_t>()[0]);
    out.samples += batch->count;
  }
  const auto samples = static_cast<double>(std::max<int64_t>(1, out.samples));
  out.loss = loss_sum / samples;
  out.accuracy = correct / samples;
  return out;
}

void Trainer::resume() {
  const auto checkpoint = newest_checkpoint(folder_.path() / "checkpoints");
  if (!checkpoint) {
    throw FileError("resume", "{} holds no complete checkpoint; start without --resume",
                    (folder_.path() / "checkpoints").string());
  }
  const CheckpointState state = load_checkpoint(
      *checkpoint, experiment_.slots(),
      [&](SlotId slot, const Tensor& value) { executor_->write_slot(slot, value); });
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
  experiment_.passes().restore(state.passes);
  done_ = saved_at_ = state.step;
  started_ = false;
  folder_.resume_at(done_);
  folder_.log().info("resumed from {} at step {}", checkpoint->string(), done_);
}

int64_t Trainer::update_batch() const {
  return experiment_.step_options().batch * experiment_.step_options().accumulate;
}

void Trainer::save() {
  save_checkpoint(
      folder_.path() / "checkpoints",
      {.step = done_,
       .seed = seed_,
       .batch = update_batch(),
       .passes = experiment_.passes().state()},
      experiment_.slots(), [&](SlotId slot) { return executor_->read_slot(slot); },
      experiment_.recipe().integer("checkpoint.keep"));
  saved_at_ = done_;
}

void Trainer::not_finite() const {
  throw NumericalError("train",
                       "the loss is {} and the gradients' norm {} at step {}; the last checkpoint "
                       "stays. Lower optimizer.lr, add warm-up or set train.clip_norm",
                       loss_, grad_norm_, done_);
}

RunSummary Trainer::run(const std::atomic<bool>& stop) {
  const recipe::Recipe& recipe = experiment_.recipe();
  const int64_t every = recipe.integer("checkpoint.every_steps");
  const int64_t eval_every = recipe.integer("eval.every_steps");
  const int64_t steps_per_epoch =
      std::max<int64_t>(1, train_data_->steps_per_epoch() / experiment_.step_options().accumulate);
  const double step_flops = graph_flops(&experiment_.update_step()) +
                            graph_flops(experiment_.accumulate_step()) *
                                static_cast<double>(experiment_.step_options().accumulate - 1);
  const auto started = Clock::now();
  double eval_seconds = 0;
  std::vector<double> step_seconds;
  EvalResult eval;
  int64_t evaluated_at = -1;
  const auto evaluate_now = [&] {
    const auto begin = Clock::now();
    eval = evaluate();
    eval_seconds += seconds_since(begin);
    evaluated_at = done_;
    folder_.append_metrics({done_, {{"eval_loss", eval.loss}, {"eval_accuracy", eval.accuracy}}});
    folder_.log().info("step {}: eval loss {:.4f}, accuracy {:.2f} %", done_, eval.loss,
                       100 * eval.accuracy);
  };

  bool interrupted = false;
  {
    Progress progress(schedule_.steps, done_);
    while (done_ < schedule_.steps && !interrupted) {
      const double lr = peak_lr_ * schedule_.factor(done_);
      const auto begin = Clock::now();
      const double loss = step();
      const double seconds = seconds_since(begin);
      step_seconds.push_back(seconds);
      // The step's update has already used the gradients: the weights are lost with either.
      if (!std::isfinite(loss) || !std::isfinite(grad_norm_)) {
        not_finite();
      }
      const double rate = static_cast<double>(samples_) / seconds;
      folder_.append_metrics({done_,
                              {{"loss", loss},
                               {"lr", lr},
                               {"grad_norm", grad_norm_},
                               {"accuracy", correct_ / static_cast<double>(samples_)},
                               {"samples_per_s", rate},
                               {"tflops", step_flops / seconds * 1e-12},
                               {"peak_bytes", static_cast<double>(memory_->peak_bytes())}}});
      progress.update(done_, samples_, loss);
      interrupted = stop.load();
      const bool at_end = done_ == schedule_.steps;
      const bool due = eval_every > 0 ? done_ % eval_every == 0 : done_ % steps_per_epoch == 0;
      if (!interrupted && experiment_.eval_step() != nullptr && (due || at_end)) {
        progress.finish();
        evaluate_now();
      }
      if (interrupted || (every > 0 && done_ % every == 0 && !at_end)) {
        save();
      }
    }
  }
  if (interrupted) {
    throw Interrupted("train", "stopped after step {} of {}; go on with --resume", done_,
                      schedule_.steps);
  }
  if (experiment_.eval_step() != nullptr && evaluated_at != done_) {
    evaluate_now();  // resumed at the very end
  }
  if (!step_seconds.empty()) {
    measured_arena_ = executor_->touched_arena_bytes(kArenaMark);
  }
  if (recipe.boolean("checkpoint.final")) {
    if (saved_at_ != done_) {
      save();
    }
    nn::save_weights(experiment_.model(), folder_.path() / "model",
                     [&](SlotId slot) { return executor_->read_slot(slot); });
  }

  RunSummary summary;
  summary.status = "finished";
  summary.device = memory_->description();
  summary.seed = seed_;
  summary.metrics = {{"steps", static_cast<double>(done_)}};
  if (!step_seconds.empty()) {
    summary.metrics.emplace_back("loss", loss_);
  }
  if (experiment_.eval_step() != nullptr) {
    summary.metrics.emplace_back("eval_loss", eval.loss);
    summary.metrics.emplace_back("accuracy", eval.accuracy);
  }
  summary.times = {{"total_s", seconds_since(started)}, {"eval_s", eval_seconds}};
  // A run that was resumed at its end has no steps to speak of.
  if (const double step_median = median(step_seconds); step_median > 0) {
    const auto batch = static_cast<double>(experiment_.step_options().batch *
                                           experiment_.step_options().accumulate);
    summary.metrics.emplace_back("samples_per_s", batch / step_median);
    summary.metrics.emplace_back("tflops", step_flops / step_median * 1e-12);
    summary.times.emplace_back("step_ms_median", 1e3 * step_median);
  }
  return summary;
}

int64_t Trainer::measured_peak_bytes() const {
  return measured_arena_ < 0 ? -1 : executor_->slot_block_bytes() + measured_arena_;
}

}  // namespace lithe
