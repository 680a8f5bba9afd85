// Labelled images as bytes. A dataset hands out raw HWC pixels; transforms make the model's floats.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tensor/core/error.h"

namespace lithe {

// No image may have more, in a file or after resizing.
inline constexpr int64_t kMaxImagePixels = 64 * 1024 * 1024;

struct ImageShape {
  int64_t height = 0;
  int64_t width = 0;
  int64_t channels = 0;  // 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA
  bool operator==(const ImageShape&) const = default;
};

// Pixels that somebody else owns: rows of width * channels bytes, `row_stride` bytes apart.
struct ImageView {
  const uint8_t* pixels = nullptr;
  ImageShape shape;
  int64_t row_stride = 0;

  const uint8_t* row(int64_t y) const { return pixels + y * row_stride; }
};

// All members are const and safe to call from several threads at once.
class ImageDataset {
 public:
  virtual ~ImageDataset() = default;

  virtual int64_t size() const = 0;
  virtual int64_t classes() const = 0;
  virtual int64_t channels() const = 0;
  // The shape that all images share, or nothing where it varies (folders).
  virtual std::optional<ImageShape> image_shape() const = 0;
  virtual std::string class_name(int64_t label) const { return std::to_string(label); }

  // Label of image `index` in [0, size()), in [0, classes()).
  virtual int64_t label(int64_t index) const = 0;
  // Pixels of image `index`; decoded into `scratch` where the dataset does not hold them, so the
  // view is valid until `scratch` changes. Throws FileError when the file is gone or damaged.
  virtual ImageView image(int64_t index, std::vector<uint8_t>& scratch) const = 0;
};

}  // namespace lithe

template <>
struct fmt::formatter<lithe::ImageShape> : fmt::formatter<std::string> {
  auto format(const lithe::ImageShape& s, fmt::format_context& ctx) const {
    return fmt::formatter<std::string>::format(
        fmt::format("{}x{}x{} (height x width x channels)", s.height, s.width, s.channels), ctx);
  }
};
