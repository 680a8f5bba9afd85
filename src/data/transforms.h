// From bytes to the model's floats: resize, crop and flip on bytes (as PIL does, so that pretrained
// models see the pixels they were trained on), then normalise into fp32 HWC in one pass.
// Random choices are pure functions of (seed, epoch, image index): a resumed run repeats them.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "data/dataset.h"
#include "data/resize.h"

namespace lithe {

// To exactly height x width; the aspect ratio is not kept.
struct Resize {
  int64_t height = 0;
  int64_t width = 0;
  Interpolation interpolation = Interpolation::kBilinear;
};
// The shorter side to `size`, the longer one in proportion, rounded down.
struct ResizeShorter {
  int64_t size = 0;
  Interpolation interpolation = Interpolation::kBilinear;
};
// The centre; where the image is smaller, it is centred on zeros.
struct CenterCrop {
  int64_t height = 0;
  int64_t width = 0;
};
// A uniformly placed window of the image with `padding` zero pixels on all four sides.
struct RandomCrop {
  int64_t height = 0;
  int64_t width = 0;
  int64_t padding = 0;
};
struct RandomFlip {  // left to right
  float probability = 0.5f;
};
// A window of random area (a fraction of the image's) and aspect ratio (log-uniform, width /
// height), resized; after ten windows that do not fit, the largest centred one (Szegedy et al.
// 2015).
struct RandomResizedCrop {
  int64_t height = 0;
  int64_t width = 0;
  std::array<float, 2> area{0.08f, 1.0f};
  std::array<float, 2> ratio{3.0f / 4.0f, 4.0f / 3.0f};
  Interpolation interpolation = Interpolation::kBilinear;
};
using Transform =
    std::variant<Resize, ResizeShorter, CenterCrop, RandomCrop, RandomFlip, RandomResizedCrop>;

// out = (byte / 255 - mean) / std, one value for all channels or one for each; empty: mean 0,
// std 1.
struct Normalize {
  std::vector<float> mean;
  std::vector<float> std;
};

// What the random choices for one image depend on.
struct AugmentKey {
  uint64_t seed = 0;
  uint64_t epoch = 0;
  uint64_t index = 0;
};

class Transforms {
 public:
  // Buffers of one thread, reused from image to image.
  struct Scratch {
    std::array<std::vector<uint8_t>, 2> buffers;
  };

  // Throws UsageError for sizes that are not positive, a std of 0, or ranges out of order.
  explicit Transforms(std::vector<Transform> steps = {}, const Normalize& normalize = {});

  // The shape of what apply() makes from images of shape `in` (nothing: it varies). Throws
  // UsageError when it would vary too, or when mean and std are not for `channels` channels.
  ImageShape output_shape(std::optional<ImageShape> in, int64_t channels) const;

  // Writes [H, W, C] floats to `out`; throws UsageError when the result is not of shape `wanted`.
  void apply(const ImageView& image, const AugmentKey& key, const ImageShape& wanted,
             std::span<float> out, Scratch& scratch) const;

 private:
  // Scale and bias repeat over the channels; 48 holds whole periods of 1 to 4 and whole vectors.
  static constexpr int64_t kPeriod = 48;

  void write(const ImageView& image, bool flip, float* out) const;

  std::vector<Transform> steps_;
  size_t normalize_channels_ = 1;
  std::array<float, kPeriod> scale_{};
  std::array<float, kPeriod> bias_{};
};

}  // namespace lithe
