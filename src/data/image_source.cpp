#include "data/image_source.h"

namespace lithe {

ImageSource::ImageSource(std::shared_ptr<const ImageDataset> dataset, Transforms transforms,
                         uint64_t seed)
    : dataset_(std::move(dataset)),
      transforms_(std::move(transforms)),
      seed_(seed),
      shape_(transforms_.output_shape(dataset_->image_shape(), dataset_->channels())) {}

void ImageSource::fill(Batch& batch) const {
  const int64_t count = batch.count();
  const std::span<float> pixels =
      batch.field("pixels", DType::f32, {count, shape_.height, shape_.width, shape_.channels})
          .as<float>();
  const std::span<int64_t> labels = batch.field("labels", DType::i64, {count}).as<int64_t>();
  const auto image_size = static_cast<size_t>(shape_.height * shape_.width * shape_.channels);
  std::vector<uint8_t> decoded;
  Transforms::Scratch scratch;
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    const int64_t row = batch.rows[i];
    const AugmentKey key{seed_, static_cast<uint64_t>(batch.epoch), static_cast<uint64_t>(row)};
    transforms_.apply(dataset_->image(row, decoded), key, shape_,
                      pixels.subspan(i * image_size, image_size), scratch);
    labels[i] = dataset_->label(row);
  }
}

}  // namespace lithe
