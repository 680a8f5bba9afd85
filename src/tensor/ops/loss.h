// Losses; results are scalars in the input's dtype (fp32 for 16-bit inputs).
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

struct CrossEntropyAttrs {
  int64_t ignore_index = -100;
  double label_smoothing = 0;  // in [0, 1]: this much of the target is spread over all classes
};

// Mean over rows of -log softmax(logits)[label]; logits [..., C], labels int64 [...]; rows whose
// label is ignore_index do not count. 0 when no row counts. Backward keeps logits and 4 bytes a
// row, the log-sum-exp (second output, [...], fp32 or fp64). A label outside [0, C) other than
// ignore_index is an error (ShapeError).
ValueId cross_entropy(Graph& graph, ValueId logits, ValueId labels,
                      const CrossEntropyAttrs& attrs = {});

// Mean of (x - target)², 0 for no elements; no gradient for the target.
ValueId mse(Graph& graph, ValueId x, ValueId target);

// Number of rows whose largest logit (the first of equals) is the label, int64 scalar; ignored rows
// do not count, nor do rows with NaN.
ValueId count_correct(Graph& graph, ValueId logits, ValueId labels, int64_t ignore_index = -100);

extern const OpDef cross_entropy_op, mse_op, count_correct_op;
// dlogits from (dloss, logits, labels, log-sum-exp); dx from (dloss, x, target).
extern const OpDef cross_entropy_grad_op, mse_grad_op;

struct CountCorrectAttrs {
  int64_t ignore_index = -100;
};

void cross_entropy_cpu(const KernelArgs& args);
void cross_entropy_grad_cpu(const KernelArgs& args);
void mse_cpu(const KernelArgs& args);
void mse_grad_cpu(const KernelArgs& args);
void count_correct_cpu(const KernelArgs& args);

// Elements that mse_cpu sums at a time; the partial sums lie in the workspace.
inline constexpr int64_t kMseChunk = 16384;

}  // namespace lithe
