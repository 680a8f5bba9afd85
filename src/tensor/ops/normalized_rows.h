// Rows as layer norm sees them, without its scale and shift: what a norm whose scale is frozen
// needs of its input.
#pragma once

#include "tensor/graph/gradient.h"

namespace lithe {

// (x - mean) rstd of x [..., H], mean and rstd [rows] in the type of norm's statistics.
ValueId normalize_rows(Graph& graph, ValueId x, ValueId mean, ValueId rstd);
// y / rstd of y [..., H]: rows around a mean of 0 that have y as their normalised form.
ValueId spread_rows(Graph& graph, ValueId y, ValueId rstd);

// Neither has a gradient: they stand between forward and backward.
extern const OpDef normalize_rows_op, spread_rows_op;

void normalize_rows_cpu(const KernelArgs& args);
void spread_rows_cpu(const KernelArgs& args);

}  // namespace lithe
