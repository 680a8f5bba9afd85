#include "data/memory_dataset.h"

#include <algorithm>

#include "tensor/core/checked.h"

namespace lithe {

MemoryDataset::MemoryDataset(std::string_view source, ImageShape shape, std::vector<uint8_t> pixels,
                             std::vector<uint8_t> labels, int64_t classes,
                             std::vector<std::string> names)
    : shape_(shape),
      pixels_(std::move(pixels)),
      labels_(std::move(labels)),
      classes_(classes),
      names_(std::move(names)) {
  const int64_t image_bytes = checked_mul(checked_mul(shape.height, shape.width), shape.channels);
  const int64_t wanted = checked_mul(size(), image_bytes);
  if (size() == 0 || image_bytes == 0 || static_cast<int64_t>(pixels_.size()) != wanted) {
    throw FileError("data",
                    "{}: {} labels and {} bytes of pixels, images of {} need {}; check that the "
                    "files belong together",
                    source, size(), pixels_.size(), shape, wanted);
  }
  const int64_t highest = *std::max_element(labels_.begin(), labels_.end());
  if (classes_ == 0) {
    classes_ = highest + 1;
  }
  if (highest >= classes_) {
    throw FileError("data", "{}: label {} with {} classes; set `classes` to at least {}", source,
                    highest, classes_, highest + 1);
  }
}

std::string MemoryDataset::class_name(int64_t label) const {
  return label < static_cast<int64_t>(names_.size()) ? names_[static_cast<size_t>(label)]
                                                     : ImageDataset::class_name(label);
}

ImageView MemoryDataset::image(int64_t index, std::vector<uint8_t>&) const {
  const int64_t row = shape_.width * shape_.channels;
  return {pixels_.data() + index * shape_.height * row, shape_, row};
}

}  // namespace lithe
