// One door to all image datasets: the recipe's `data` section names the kind.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "data/dataset.h"

namespace lithe {

struct DataSpec {
  std::string kind = "idx";  // idx, cifar10, cifar100, folder, synthetic
  std::string path;          // folder of the files; unused by synthetic
  bool train = true;         // the split
  int64_t synthetic_size = 1024;
  int64_t height = 224;  // height and width: synthetic only
  int64_t width = 224;
  int64_t channels = 3;  // synthetic and folder
  int64_t classes = 0;   // synthetic needs it; idx: 0 means the highest label + 1
  uint64_t seed = 0;     // synthetic
};

// Throws UsageError for an unknown kind and FileError for missing or damaged files.
std::unique_ptr<ImageDataset> open_image_dataset(const DataSpec& spec);

}  // namespace lithe
