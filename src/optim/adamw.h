// AdamW (Loshchilov and Hutter 2019): decoupled weight decay, both conventions of epsilon
// (specs/slimfit.md 5.4). State: m, v (fp32) and a step counter a tensor, counted only when updated.
#pragma once

#include "optim/optimizer.h"

namespace lithe {

recipe::Schema adamw_options();
std::unique_ptr<Optimizer> make_adamw(const recipe::Recipe& optimizer);

}  // namespace lithe
