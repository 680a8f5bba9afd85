// Labelled images as batches: "pixels" fp32 [B, H, W, C] and "labels" int64 [B].
#pragma once

#include <memory>

#include "data/batch.h"
#include "data/dataset.h"
#include "data/transforms.h"

namespace lithe {

class ImageSource final : public BatchSource {
 public:
  // Random transforms depend on (seed, epoch, row). Throws UsageError for transforms that do not
  // give one shape.
  ImageSource(std::shared_ptr<const ImageDataset> dataset, Transforms transforms, uint64_t seed);

  int64_t size() const override { return dataset_->size(); }
  void fill(Batch& batch) const override;

  ImageShape image_shape() const { return shape_; }
  const ImageDataset& dataset() const { return *dataset_; }

 private:
  std::shared_ptr<const ImageDataset> dataset_;
  Transforms transforms_;
  uint64_t seed_;
  ImageShape shape_;
};

}  // namespace lithe
