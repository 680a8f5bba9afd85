#include "data/open.h"

#include <filesystem>

#include "data/cifar.h"
#include "data/idx.h"
#include "data/image_folder.h"
#include "data/synthetic.h"
#include "tensor/core/philox.h"

namespace lithe {
namespace {

std::unique_ptr<ImageDataset> open_kind(const DataSpec& spec) {
  if (spec.kind == "idx") {
    return open_idx(spec.path, spec.train, spec.classes);
  }
  if (spec.kind == "cifar10") {
    return open_cifar(spec.path, CifarKind::kCifar10, spec.train);
  }
  if (spec.kind == "cifar100") {
    return open_cifar(spec.path, CifarKind::kCifar100, spec.train);
  }
  if (spec.kind == "folder") {
    return open_image_folder(spec.path, spec.train, spec.channels);
  }
  if (spec.kind == "synthetic") {
    // The two splits differ, as they would in files.
    return make_synthetic_images(spec.synthetic_size, {spec.height, spec.width, spec.channels},
                                 spec.classes, mix(spec.seed, spec.train ? 0 : 1));
  }
  throw UsageError("data.kind", "'{}' is unknown; use idx, cifar10, cifar100, folder or synthetic",
                   spec.kind);
}

}  // namespace

std::unique_ptr<ImageDataset> open_image_dataset(const DataSpec& spec) {
  try {
    return open_kind(spec);
  } catch (const std::filesystem::filesystem_error& error) {
    throw FileError("data.path", "{}: {}; check the path and its permissions", spec.path,
                    error.code().message());
  }
}

}  // namespace lithe
