// Adapters as weight expressions: the model's weights are frozen, and each chosen linear layer's
// weight W becomes Sum(W, delta) with a delta that is trained. The kind so far is LoRA (Hu et al.
// 2021, arXiv 2106.09685): y = x Wᵀ + b + scale · drop(x) Aᵀ Bᵀ. What W itself is does not matter:
// it is asked to multiply, as before.
//
// W is never written: merging computes W + scale · B A into the files of the exported model, and
// the pass's inverse gives each layer its own weight back, bit for bit.
#pragma once

#include "tensor/graph/pass.h"

namespace lithe {

extern const PassKind adapter_pass;

}  // namespace lithe
