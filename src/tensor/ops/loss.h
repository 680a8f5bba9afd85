// Losses; results are scalars in the input's dtype (fp32 for 16-bit inputs).
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

struct CrossEntropyAttrs {
  int64_t ignore_index = -100;
  double label_smoothing = 0;
};

// Mean over rows of -log softmax(logits)[label]; logits [..., C], labels int64 [...]; rows whose label is
// ignore_index do not count. 0 when no row counts. Backward keeps logits and 4 bytes a row.
// A label outside [0, C) other than ignore_index is an error (ShapeError).
ValueId cross_entropy(Graph& graph, ValueId logits, ValueId labels,
                      const CrossEntropyAttrs& attrs = {});

// Mean of (x - target)²; no gradient for the target.
ValueId mse(Graph& graph, ValueId x, ValueId target);

// Number of rows whose largest logit (the first of equals) is the label, int64 scalar; ignored rows
// do not count.
ValueId count_correct(Graph& graph, ValueId logits, ValueId labels, int64_t ignore_index = -100);

extern const OpDef cross_entropy_op, cross_entropy_grad_op, mse_op, mse_grad_op, count_correct_op;

}  // namespace lithe
