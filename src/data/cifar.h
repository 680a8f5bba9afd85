// CIFAR-10 and CIFAR-100 binary batches: a record is one label byte (CIFAR-100: coarse, fine), then
// 3072 bytes in channel-height-width order. https://www.cs.toronto.edu/~kriz/cifar.html
#pragma once

#include <filesystem>
#include <memory>

#include "data/dataset.h"

namespace lithe {

enum class CifarKind { kCifar10, kCifar100 };

// Reads data_batch_{1..5}.bin or test_batch.bin (CIFAR-100: train.bin or test.bin, fine labels)
// from `folder`, or from the folder of the official archive inside it, into memory, [N, 32, 32, 3].
// Throws FileError for missing files, part records and labels out of range.
std::unique_ptr<ImageDataset> open_cifar(const std::filesystem::path& folder, CifarKind kind,
                                         bool train);

}  // namespace lithe
