// AdamW (Loshchilov and Hutter, arXiv 1711.05101): decoupled weight decay. Epsilon is added to the
// corrected moment, m̂ / (sqrt(v̂) + eps), as in PyTorch, or to the uncorrected one,
// sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + eps), as in the code of SlimFit (arXiv 2305.18513).
// State: m, v in fp32, or in 8 bits "codes" and "scales" (tensor/ops/moment_codes.h), and a step
// counter a tensor, counted only when updated.
#pragma once

#include "optim/optimizer.h"

namespace lithe {

recipe::Schema adamw_options();
std::unique_ptr<Optimizer> make_adamw(const recipe::Recipe& optimizer);

}  // namespace lithe
