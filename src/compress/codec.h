// Codecs of saved activations: a forward value that only backward still needs waits for it in
// fewer bits. The encoding stands right behind the value's producer and the decoding right before
// each backward reader, so no full-size copy lives in between; the forward pass itself computes
// with exact values. SlimFit (arXiv 2305.18513), section on activation compression.
#pragma once

#include "tensor/graph/pass.h"

namespace lithe {

extern const PassKind codec_pass;

}  // namespace lithe
