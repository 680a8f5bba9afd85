// Separable image resampling whose filter widens with the scale (antialiasing), bit-equal to
// Pillow's Image.resize and so to torchvision on PIL images: pretrained vision models saw such
// pixels.
#pragma once

#include <vector>

#include "data/dataset.h"

namespace lithe {

enum class Interpolation { kBilinear, kBicubic };  // bicubic: Keys' kernel with a = -0.5

// Resizes to [height, width, C], C at most 4, both sizes positive. `out` is resized and owns the
// view that is returned; it must not hold `in`.
ImageView resize(const ImageView& in, int64_t height, int64_t width, Interpolation interpolation,
                 std::vector<uint8_t>& out);

}  // namespace lithe
