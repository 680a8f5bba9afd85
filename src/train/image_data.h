// The recipe's `data` section for image classification.
#pragma once

#include <memory>

#include "data/image_source.h"
#include "recipe/recipe.h"

namespace lithe {

// Adds the keys that only images have.
void add_image_options(recipe::Schema& schema);

// What a split is asked to deliver.
struct ImageTarget {
  int64_t size = 0;      // images are made size x size
  int64_t channels = 0;  // and must have as many channels
  int64_t classes = 0;   // labels must be below
};

// The training (augmented) or evaluation images. Throws UsageError when the data does not fit the
// model, FileError when files are missing.
std::shared_ptr<const ImageSource> open_image_data(const recipe::Recipe& data,
                                                   const ImageTarget& target, bool train,
                                                   uint64_t seed);

}  // namespace lithe
