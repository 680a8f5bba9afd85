// SGD with momentum as PyTorch defines it: weight decay is added to the gradient, the first step
// sets the velocity to the gradient.
#pragma once

#include "optim/optimizer.h"

namespace lithe {

recipe::Schema sgd_options();
std::unique_ptr<Optimizer> make_sgd(const recipe::Recipe& optimizer);

}  // namespace lithe
