#include "data/synthetic.h"

#include <algorithm>
#include <cstring>

#include "tensor/core/checked.h"
#include "tensor/core/philox.h"

namespace lithe {
namespace {

constexpr uint64_t kLabelStream = 0x6c6162656c;  // "label"
constexpr uint64_t kPixelStream = 0x706978656c;  // "pixel"

class SyntheticImages final : public ImageDataset {
 public:
  SyntheticImages(int64_t size, ImageShape shape, int64_t classes, uint64_t seed)
      : size_(size), shape_(shape), classes_(classes), seed_(seed) {}

  int64_t size() const override { return size_; }
  int64_t classes() const override { return classes_; }
  int64_t channels() const override { return shape_.channels; }
  std::optional<ImageShape> image_shape() const override { return shape_; }

  int64_t label(int64_t index) const override {
    const PhiloxBlock block = philox(seed_, kLabelStream, static_cast<uint64_t>(index));
    return static_cast<int64_t>(block.word[0] % static_cast<uint64_t>(classes_));
  }

  ImageView image(int64_t index, std::vector<uint8_t>& scratch) const override {
    const int64_t row = shape_.width * shape_.channels;
    scratch.resize(static_cast<size_t>(shape_.height * row));
    const uint64_t stream = mix(kPixelStream, static_cast<uint64_t>(index));
    for (size_t at = 0, block = 0; at < scratch.size(); at += sizeof(PhiloxBlock), ++block) {
      const PhiloxBlock words = philox(seed_, stream, block);
      std::memcpy(scratch.data() + at, &words, std::min(sizeof(words), scratch.size() - at));
    }
    return {scratch.data(), shape_, row};
  }

 private:
  int64_t size_;
  ImageShape shape_;
  int64_t classes_;
  uint64_t seed_;
};

}  // namespace

std::unique_ptr<ImageDataset> make_synthetic_images(int64_t size, ImageShape shape, int64_t classes,
                                                    uint64_t seed) {
  if (size <= 0 || classes <= 0 || shape.height <= 0 || shape.width <= 0 || shape.channels <= 0 ||
      shape.channels > 4) {
    throw UsageError("synthetic",
                     "{} images of {} in {} classes; all must be positive, channels at most 4",
                     size, shape, classes);
  }
  checked_mul(checked_mul(shape.height, shape.width), shape.channels);
  return std::make_unique<SyntheticImages>(size, shape, classes, seed);
}

}  // namespace lithe
