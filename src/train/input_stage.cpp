#include "train/input_stage.h"

#include <algorithm>

namespace lithe {
namespace {

StepWork work_of(const StepGraph& step) {
  const Graph& g = *step.graph;
  StepWork work;
  for (const NodeId n : step.plan.order) {
    const OpDef& op = *g.node(n).op;
    if (op.flops == nullptr || g.node(n).output_count == 0) {
      continue;
    }
    const DType dtype = g.dtype(g.output(n, 0));
    const bool half = dtype == DType::bf16 || dtype == DType::f16;
    double& sum = half ? work.half : g.numerics().tf32 ? work.tf32 : work.other;
    sum += op.flops(g, n);
  }
  return work;
}

}  // namespace

InputLayout::InputLayout(const StepGraph& step) {
  const Graph& g = *step.graph;
  const auto add = [&](ValueId value) {
    if (value != kNoValue) {
      at.emplace_back(value, bytes);
      bytes += round_up(g.bytes(value), kArenaAlignment);
    }
  };
  for (const auto& [name, value] : step.inputs) {
    add(value);
  }
  add(step.rng);
  add(step.lr);
}

bool is_worth_staging(int64_t bytes, const StepWork& work) {
  // Few bytes cost no memory worth the name, and their copies take as long as they take to start.
  constexpr int64_t kFew = int64_t{16} << 20;
  constexpr double kShare = 0.02;  // of the step's time that is not worth hiding
  // An H100's rates and those of its host link. The same for all devices: what a plan says does not
  // depend on the machine that made it.
  constexpr double kHalf = 989e12;
  constexpr double kTf32 = 495e12;
  constexpr double kOther = 67e12;
  constexpr double kLink = 50e9;
  const double arithmetic = work.half / kHalf + work.tf32 / kTf32 + work.other / kOther;
  return bytes <= kFew || static_cast<double>(bytes) / kLink > kShare * arithmetic;
}

int64_t input_stage_bytes(const StepGraph& step, DeviceKind device) {
  const int64_t bytes = device == DeviceKind::cpu ? 0 : InputLayout(step).bytes;
  return bytes > 0 && is_worth_staging(bytes, work_of(step)) ? bytes : 0;
}

int64_t input_stage_bytes(std::span<const StepGraph* const> steps, DeviceKind device) {
  int64_t most = 0;
  for (const StepGraph* step : steps) {
    most = std::max(most, input_stage_bytes(*step, device));
  }
  return most;
}

}  // namespace lithe
