// Random images and labels that need no file: for memory and speed runs.
#pragma once

#include <memory>

#include "data/dataset.h"

namespace lithe {

// Image and label `index` are pure functions of (seed, index). Throws UsageError unless size,
// classes and all dimensions are positive and channels is at most 4.
std::unique_ptr<ImageDataset> make_synthetic_images(int64_t size, ImageShape shape, int64_t classes,
                                                    uint64_t seed);

}  // namespace lithe
