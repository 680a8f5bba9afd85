// A folder with one subfolder of PNG or JPEG files a class; images are decoded when they are asked
// for, so memory does not grow with the dataset.
#pragma once

#include <filesystem>
#include <memory>

#include "data/dataset.h"

namespace lithe {

// Classes are the subfolders of `folder` in byte order, files in byte order within them (searched
// recursively); hidden names and other extensions are skipped. Where `folder` has a subfolder
// `train`, the split is `train`, or else the first of `val`, `validation`, `test`, with the classes
// of `train`. Without one, `folder` itself holds the classes of either split. `channels`: 3, or 1
// for grey. Throws FileError for a missing folder, no classes or no images.
std::unique_ptr<ImageDataset> open_image_folder(const std::filesystem::path& folder, bool train,
                                                int64_t channels = 3);

}  // namespace lithe
