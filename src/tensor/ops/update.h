// Optimizer updates as nodes: they overwrite slots, so a gradient dies in its update. All of them
// are emitted in Phase::update, whatever the graph's phase is. A gradient has the dtype of its
// weight; fp32 for a 16-bit weight (a sum over micro-batches kept in fp32); or 16 bits for an fp32
// weight (the step computed with a copy of the weight).
//
// The gradient of a table [V, H] may come as rows: gradient [R, H] and rows int32 [V], which says
// where each row of the table has its own, -1: it is zero. Results have the bits of the whole
// gradient's.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

// Where epsilon enters: both forms are in section 2 of Adam (Kingma and Ba, arXiv 1412.6980).
enum class AdamEpsilon : uint8_t {
  corrected,    // w -= lr m̂ / (sqrt(v̂) + eps), decay before the update (PyTorch)
  uncorrected,  // w -= lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + eps), decay after it
};
// How far an update moves its weight: w is the weight before, dw its change before it is rounded to
// the weight's dtype, n the number of elements. An empty weight does not move.
enum class ChangeMetric : uint8_t {
  none,
  guarded,     // mean |dw| / max(|w|, floor)
  relative,    // mean |dw| / |w|, SlimFit's own (arXiv 2305.18513): infinite or NaN where a w is 0
  norm_ratio,  // sum |dw| / max(sum |w|, n floor)
};
// What an update measures on its way through memory; each asked for is an output, fp32 [1] (fp64
// for fp64 weights), summed in a fixed order.
struct UpdateMeasures {
  bool squares = false;  // sum of squares of the gradient as it arrives, before grad_scale
  ChangeMetric change = ChangeMetric::none;
  double floor = 1e-3;

  bool any() const { return squares || change != ChangeMetric::none; }
  bool operator==(const UpdateMeasures&) const = default;
};
struct UpdateOut {
  ValueId weight = kNoValue;   // the new one, in its slot
  ValueId squares = kNoValue;  // kNoValue: not asked for
  ValueId change = kNoValue;
};

struct AdamWAttrs {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0;  // decoupled: w -= lr wd w
  AdamEpsilon epsilon = AdamEpsilon::corrected;
  // There is no gradient, which is as one of zeros: moments fade and move the weight, decay
  // applies, the step counts. A tensor that was never updated (step 0) stays as it is.
  bool no_gradient = false;
  UpdateMeasures measures = {};
};
// weight, m, v: slots of one shape (m, v fp32, or fp64 for fp64 weights), or with moments in 8 bits
// (moment_codes.h) m: uint8 [blocks, 2, 256] with the codes, v: fp32 [blocks, 2] with their scales;
// step: int64 [1] slot, counted per tensor and only when it is updated; lr: fp32 [1] input;
// gradient: kNoValue with no_gradient; grad_scale: fp32 [1] factor on the gradient or kNoValue;
// copy: slot that gets the new weight in its 16-bit dtype, or kNoValue.
struct AdamWInputs {
  ValueId weight, gradient, m, v, step, lr, grad_scale = kNoValue, copy = kNoValue, rows = kNoValue;
};
UpdateOut adamw(Graph& graph, const AdamWInputs& inputs, const AdamWAttrs& attrs);

struct SgdAttrs {
  double momentum = 0, weight_decay = 0;  // decay is added to the gradient, as in PyTorch
  bool nesterov = false;
  UpdateMeasures measures = {};
};
struct SgdInputs {
  ValueId weight, gradient, velocity = kNoValue, step = kNoValue, lr, grad_scale = kNoValue,
                            rows = kNoValue;
};
// velocity (slot) and step (int64 [1] slot) are needed with momentum; the first step sets velocity
// = gradient.
UpdateOut sgd(Graph& graph, const SgdInputs& inputs, const SgdAttrs& attrs);

// sum += gradient, sum a slot: gradient accumulation over micro-batches. Returns the new sum's
// value.
ValueId accumulate(Graph& graph, ValueId sum, ValueId gradient);
// slot := value, converted to the slot's floating dtype.
void assign(Graph& graph, ValueId slot, ValueId value);
// slot := 0, after its last read.
void clear(Graph& graph, ValueId slot);

// Sum of squares of x, fp32 [1] (fp64 for fp64), in a fixed order; with `rows`, of the table that
// they stand for.
ValueId sum_squares(Graph& graph, ValueId x, ValueId rows = kNoValue);
// From the sums of squares of all gradients: global norm, and min(1, max_norm / (norm + 1e-6)),
// fp32 [1].
struct ClipOut {
  ValueId norm = kNoValue;  // not finite where a gradient is not; the factor is then 0 or NaN
  ValueId factor = kNoValue;
};
ClipOut clip_factor(Graph& graph, std::span<const ValueId> sums_of_squares, double max_norm);

extern const OpDef adamw_op, sgd_op, accumulate_op, assign_op, clear_op, sum_squares_op,
    clip_factor_op;

struct ClipAttrs {
  double max_norm = 1;
};
void adamw_cpu(const KernelArgs& args);
void sgd_cpu(const KernelArgs& args);
void accumulate_cpu(const KernelArgs& args);
void assign_cpu(const KernelArgs& args);
void clear_cpu(const KernelArgs& args);
void sum_squares_cpu(const KernelArgs& args);
void clip_factor_cpu(const KernelArgs& args);

}  // namespace lithe
