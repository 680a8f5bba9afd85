// The recipe's `data` section for image classification: datasets, transforms and loaders.
#pragma once

#include <memory>

#include "data/loader.h"
#include "recipe/recipe.h"

namespace lithe {

recipe::Schema image_data_options();

// What a split is asked to deliver.
struct ImageTarget {
  int64_t size = 0;      // images are made size x size
  int64_t channels = 0;  // and must have as many channels
  int64_t classes = 0;   // labels must be below
};

// The training (shuffled, augmented) or evaluation loader. Throws UsageError when the data does not
// fit the model, FileError when files are missing.
std::unique_ptr<Loader> make_image_loader(const recipe::Recipe& data, const ImageTarget& target,
                                          bool train, int64_t batch_size, uint64_t seed);

}  // namespace lithe
