// Images of one shape held in memory as bytes: IDX and CIFAR are small enough.
#pragma once

#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace lithe {

class MemoryDataset final : public ImageDataset {
 public:
  // `pixels` [N, H, W, C], `labels` [N]. `classes` 0 means the highest label + 1. Throws FileError,
  // naming `source`, for no images, sizes that differ, or a label outside the classes.
  MemoryDataset(std::string_view source, ImageShape shape, std::vector<uint8_t> pixels,
                std::vector<uint8_t> labels, int64_t classes, std::vector<std::string> names = {});

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  int64_t classes() const override { return classes_; }
  int64_t channels() const override { return shape_.channels; }
  std::optional<ImageShape> image_shape() const override { return shape_; }
  std::string class_name(int64_t label) const override;
  int64_t label(int64_t index) const override { return labels_[static_cast<size_t>(index)]; }
  ImageView image(int64_t index, std::vector<uint8_t>& scratch) const override;

 private:
  ImageShape shape_;
  std::vector<uint8_t> pixels_;
  std::vector<uint8_t> labels_;
  int64_t classes_;
  std::vector<std::string> names_;
};

}  // namespace lithe
