#include "train/step_runner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "tensor/graph/finite_check.h"
#include "train/input_stage.h"

namespace lithe {
namespace {

// Results lie at the stage's start, 8 bytes each, inputs behind them.
constexpr int64_t kLossAt = 0;
constexpr int64_t kCorrectAt = 8;
constexpr int64_t kNormAt = 16;
constexpr int64_t kChangesAt = 24;

int64_t inputs_at(const StepGraph& step) {
  return round_up(kChangesAt + 8 * static_cast<int64_t>(step.changes.size()), kArenaAlignment);
}

constexpr std::string_view kAdvice = "Lower optimizer.lr, add warm-up or set train.clip_norm";

const Tensor& field(const Batch& batch, const std::string& name) {
  const Tensor* data = batch.find(name);
  if (data == nullptr) {
    throw UsageError("data", "the model wants '{}', which the data does not give; check data.kind",
                     name);
  }
  return *data;
}

// A scalar of a graph's dtype.
double number(const Graph& g, ValueId v, const std::byte* at) {
  Tensor value(g.dtype(v), {1});
  std::memcpy(value.data(), at, static_cast<size_t>(value.bytes()));
  return value.to(DType::f64).as<double>()[0];
}

}  // namespace

StepRunner::StepRunner(Executor& executor, int64_t input_bytes) : executor_(executor) {
  if (input_bytes > 0) {
    input_stage_ = Block(executor.shared_memory(), input_bytes, "a step's inputs");
  }
}

void StepRunner::write(const StepGraph& step, const Program& program, const Batch& batch,
                       const StepInputs& inputs, HostBlock& stage) {
  const Graph& g = *step.graph;
  const InputLayout layout(step);
  const int64_t bytes = inputs_at(step) + layout.bytes;
  if (bytes > stage.bytes()) {
    stage = HostBlock();
    stage = HostBlock(executor_.shared_memory(), bytes);
  }
  std::byte* host = stage.data() + inputs_at(step);
  size_t next = 0;
  const auto put = [&](const void* data, int64_t size) {
    std::memcpy(host + layout.at[next++].second, data, static_cast<size_t>(size));
  };
  for (const auto& [name, value] : step.inputs) {
    const Tensor& data = field(batch, name);
    if (data.shape() != g.shape(value) || data.dtype() != g.dtype(value)) {
      throw ShapeError(name, "the step takes {} {}, the data gives {} {}",
                       dtype_name(g.dtype(value)), g.shape(value), dtype_name(data.dtype()),
                       data.shape());
    }
    put(data.data(), data.bytes());
  }
  if (step.rng != kNoValue) {
    const std::array<int64_t, 2> rng = {static_cast<int64_t>(inputs.seed), inputs.draw};
    put(rng.data(), sizeof(rng));
  }
  if (step.lr != kNoValue) {
    const auto lr = static_cast<float>(inputs.lr);
    put(&lr, sizeof(lr));
  }

  DeviceMemory& memory = executor_.memory();
  if (!memory.asynchronous()) {
    for (const auto& [value, offset] : layout.at) {
      memory.copy_in(executor_.ref(program, value).data, host + offset, g.bytes(value));
    }
    return;
  }
  if (input_stage_.bytes() == 0) {
    memory.fence_uploads();  // the step before still reads its inputs there
    for (const auto& [value, offset] : layout.at) {
      memory.upload(executor_.ref(program, value).data, host + offset, g.bytes(value));
    }
    memory.join_uploads();
    return;
  }
  // Up while the step before runs; into the arena, whose inputs that step still reads, behind it.
  if (layout.bytes > input_stage_.bytes()) {
    throw GraphError("step", "inputs of {} bytes, room for {} was planned", layout.bytes,
                     input_stage_.bytes());
  }
  auto* device = static_cast<std::byte*>(input_stage_.data());
  memory.upload(device, host, layout.bytes);
  memory.join_uploads();
  for (const auto& [value, offset] : layout.at) {
    memory.copy_within(executor_.ref(program, value).data, device + offset, g.bytes(value));
  }
  memory.fence_uploads();
}

void StepRunner::feed(const StepGraph& step, const Program& program, const Batch& batch) {
  for (const auto& [name, value] : step.inputs) {
    executor_.write(program, value, field(batch, name));
  }
}

// Forward and the loss first: whatever is wrong by then has not reached a weight.
void StepRunner::run_checked(const StepGraph& step, const Program& program, const Batch& batch,
                             const StepInputs& inputs, HostBlock& stage) {
  executor_.run(program, 0, step.loss_end);
  const double loss = executor_.read(program, step.loss).to(DType::f64).as<double>()[0];
  if (!std::isfinite(loss)) {
    write(step, program, batch, inputs, stage);  // inputs are overwritten once they are read
    const std::optional<NotFinite> bad = first_not_finite(executor_, program, step.loss_end);
    throw NumericalError(
        "train",
        "the loss is {} at step {}; {}; the weights before this step and the last checkpoint stay. "
        "{}",
        loss, inputs.step + 1,
        bad ? fmt::format("the first value that went wrong is {} {}{}: {} of {} elements, {} at {}",
                          bad->value, bad->shape,
                          bad->op.empty() ? "" : fmt::format(", made by {}", bad->op), bad->count,
                          bad->shape.numel(), bad->example, bad->first)
            : "running it again gave finite values, so look for a kernel that is not deterministic",
        kAdvice);
  }
  executor_.run(program, step.loss_end, static_cast<int>(step.plan.order.size()));
}

void StepRunner::launch(const StepGraph& step, const Program& program, const Batch& batch,
                        const StepInputs& inputs) {
  const size_t number_of_stage = next_stage_;
  next_stage_ = (next_stage_ + 1) % stages_.size();
  HostBlock& stage = stages_[number_of_stage];
  write(step, program, batch, inputs, stage);
  if (inputs.profile) {
    profiled_ = executor_.run_profiled(program);
  } else if (executor_.memory().asynchronous()) {
    executor_.run(program);
  } else {
    run_checked(step, program, batch, inputs, stage);
  }
  std::byte* results = stage.data();
  executor_.read_async(program, step.loss, results + kLossAt);
  if (step.correct != kNoValue) {
    executor_.read_async(program, step.correct, results + kCorrectAt);
  }
  if (step.grad_norm != kNoValue) {
    executor_.read_async(program, step.grad_norm, results + kNormAt);
  }
  std::byte* change = results + kChangesAt;
  for (const auto& [unit, value] : step.changes) {
    executor_.read_async(program, value, change);
    change += 8;
  }
  StepNumbers numbers{.step = inputs.step,
                      .updates = step.grad_norm != kNoValue,
                      .lr = inputs.lr,
                      .flops = step.flops,
                      .samples = batch.count(),
                      .changes = {}};
  open_.push_back({&step, numbers, number_of_stage, executor_.memory().mark()});
}

std::optional<StepNumbers> StepRunner::collect() {
  if (open_.empty()) {
    return std::nullopt;
  }
  const Open open = open_.front();
  open_.pop_front();
  executor_.memory().wait(open.mark);
  const std::byte* results = stages_[open.stage].data();
  const StepGraph& step = *open.step;
  const Graph& g = *step.graph;
  StepNumbers out = open.numbers;
  const std::byte* change = results + kChangesAt;
  for (const auto& [unit, value] : step.changes) {
    out.changes.push_back({unit, number(g, value, change)});
    change += 8;
  }
  out.loss = number(g, step.loss, results + kLossAt);
  if (step.correct != kNoValue) {
    out.correct = number(g, step.correct, results + kCorrectAt);
  }
  if (step.grad_norm != kNoValue) {
    out.grad_norm = number(g, step.grad_norm, results + kNormAt);
  }
  if (!std::isfinite(out.loss)) {
    throw NumericalError("train",
                         "the loss is {} at step {}; the last checkpoint stays. {}; --device cpu "
                         "names the first value that goes wrong",
                         out.loss, out.step + 1, kAdvice);
  }
  if (!std::isfinite(out.grad_norm)) {
    gradient_not_finite(step, out);
  }
  return out;
}

void StepRunner::gradient_not_finite(const StepGraph& step, const StepNumbers& numbers) const {
  // Updates come in the order of the backward pass: the first weight that is lost had the first
  // gradient that went wrong.
  const Graph& g = *step.graph;
  std::string first;
  for (NodeId n : step.plan.order) {
    for (ValueId v : g.inputs(n)) {
      const SlotId slot = v == kNoValue ? kNoSlot : g.value(v).slot;
      if (first.empty() && slot != kNoSlot && g.node(n).phase == Phase::update &&
          g.slots()[slot].kind == SlotKind::parameter &&
          find_not_finite(executor_.read_slot(slot))) {
        first = g.slots()[slot].name;
      }
    }
  }
  throw NumericalError("train",
                       "the gradients' norm is {} at step {} while the loss is {}; {}; the last "
                       "checkpoint stays. {}",
                       numbers.grad_norm, numbers.step + 1, numbers.loss,
                       first.empty()
                           ? "only the sum of their squares is too large for fp32"
                           : fmt::format("the first gradient that went wrong is that of {}", first),
                       kAdvice);
}

}  // namespace lithe
