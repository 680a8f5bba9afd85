// IDX files (MNIST, Fashion-MNIST), plain or gzip. Format: big-endian magic 0x00000803 (images:
// count, height, width) or 0x00000801 (labels: count), then bytes. http://yann.lecun.com/exdb/mnist
#pragma once

#include <filesystem>
#include <memory>

#include "data/dataset.h"

namespace lithe {

// Reads {train|t10k}-{images-idx3,labels-idx1}-ubyte[.gz] in `folder` into memory, [N, H, W, 1].
// `classes` 0 means the highest label + 1. Throws FileError for missing, truncated or oversized
// files.
std::unique_ptr<ImageDataset> open_idx(const std::filesystem::path& folder, bool train,
                                       int64_t classes = 0);

}  // namespace lithe
