#include "data/transforms.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "tensor/core/checked.h"
#include "tensor/core/philox.h"

namespace lithe {
namespace {

constexpr uint64_t kAugmentStream = 0x6175676d656e74;  // "augment"
constexpr uint64_t kAttempts = 10;

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

// Words for attempt `attempt` of the step at `position`.
PhiloxBlock draw(const AugmentKey& key, size_t position, uint64_t attempt) {
  const uint64_t stream = mix(mix(kAugmentStream, key.epoch), position * kAttempts + attempt);
  return philox(key.seed, stream, key.index);
}

// Uniform in [0, n) by multiply and shift; the bias of n / 2^32 is far below a pixel's.
int64_t below(uint32_t word, int64_t n) {
  return static_cast<int64_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(n)) >> 32);
}

void check_size(const char* step, int64_t height, int64_t width) {
  constexpr int64_t kMaxSide = 1 << 15;
  if (height <= 0 || width <= 0 || height > kMaxSide || width > kMaxSide) {
    throw UsageError("transforms", "{} to {} x {}; sides must be in 1..{}", step, height, width,
                     kMaxSide);
  }
}

// Height and width of a whole image whose shorter side becomes `size`.
std::array<int64_t, 2> shorter_to(const ImageShape& shape, int64_t size) {
  return shape.height <= shape.width
             ? std::array{size, std::max<int64_t>(1, size * shape.width / shape.height)}
             : std::array{std::max<int64_t>(1, size * shape.height / shape.width), size};
}

// The window at (top, left), which may reach outside: zeros there, copied into `buffer`.
ImageView crop(const ImageView& in, int64_t top, int64_t left, int64_t height, int64_t width,
               std::vector<uint8_t>& buffer) {
  const int64_t channels = in.shape.channels;
  if (top >= 0 && left >= 0 && top + height <= in.shape.height && left + width <= in.shape.width) {
    return {in.row(top) + left * channels, {height, width, channels}, in.row_stride};
  }
  const int64_t row_bytes = width * channels;
  buffer.assign(static_cast<size_t>(height * row_bytes), 0);
  const int64_t first_x = std::max<int64_t>(left, 0);
  const int64_t last_x = std::min(left + width, in.shape.width);
  const int64_t last_y = std::min(top + height, in.shape.height);
  for (int64_t y = std::max<int64_t>(top, 0); y < last_y && first_x < last_x; ++y) {
    std::memcpy(buffer.data() + (y - top) * row_bytes + (first_x - left) * channels,
                in.row(y) + first_x * channels, static_cast<size_t>((last_x - first_x) * channels));
  }
  return {buffer.data(), {height, width, channels}, row_bytes};
}

// As torchvision: half to even where the image is larger, the smaller half before where it is not.
int64_t center_offset(int64_t image, int64_t window) {
  return image >= window
             ? static_cast<int64_t>(std::nearbyint(static_cast<double>(image - window) / 2.0))
             : -((window - image) / 2);
}

struct Window {
  int64_t top, left, height, width;
};

Window random_window(const RandomResizedCrop& t, const ImageShape& shape, const AugmentKey& key,
                     size_t position) {
  const auto height = static_cast<double>(shape.height), width = static_cast<double>(shape.width);
  const double log_low = std::log(static_cast<double>(t.ratio[0]));
  const double log_high = std::log(static_cast<double>(t.ratio[1]));
  for (uint64_t attempt = 0; attempt < kAttempts; ++attempt) {
    const PhiloxBlock random = draw(key, position, attempt);
    const double fraction =
        t.area[0] + (static_cast<double>(t.area[1]) - t.area[0]) * uniform01(random.word[0]);
    const double ratio = std::exp(log_low + (log_high - log_low) * uniform01(random.word[1]));
    const auto w =
        static_cast<int64_t>(std::nearbyint(std::sqrt(height * width * fraction * ratio)));
    const auto h =
        static_cast<int64_t>(std::nearbyint(std::sqrt(height * width * fraction / ratio)));
    if (w > 0 && h > 0 && w <= shape.width && h <= shape.height) {
      return {below(random.word[2], shape.height - h + 1),
              below(random.word[3], shape.width - w + 1), h, w};
    }
  }
  Window out{0, 0, shape.height, shape.width};
  if (width / height < t.ratio[0]) {
    out.height = std::max<int64_t>(1, static_cast<int64_t>(std::nearbyint(width / t.ratio[0])));
  } else if (width / height > t.ratio[1]) {
    out.width = std::max<int64_t>(1, static_cast<int64_t>(std::nearbyint(height * t.ratio[1])));
  }
  out.height = std::min(out.height, shape.height);
  out.width = std::min(out.width, shape.width);
  out.top = (shape.height - out.height) / 2;
  out.left = (shape.width - out.width) / 2;
  return out;
}

// Mirrors into `buffer`; only needed where another step follows, write() mirrors on the way.
ImageView mirror(const ImageView& in, std::vector<uint8_t>& buffer) {
  const auto [height, width, channels] = in.shape;
  const int64_t row_bytes = width * channels;
  buffer.resize(static_cast<size_t>(height * row_bytes));
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      std::memcpy(buffer.data() + y * row_bytes + x * channels,
                  in.row(y) + (width - 1 - x) * channels, static_cast<size_t>(channels));
    }
  }
  return {buffer.data(), in.shape, row_bytes};
}

// The value for a channel of a list that is empty, of one for all, or of one for each.
float channel_value(const std::vector<float>& values, size_t channel, float missing) {
  return values.empty() ? missing : values[channel % values.size()];
}

}  // namespace

Transforms::Transforms(std::vector<Transform> steps, const Normalize& normalize)
    : steps_(std::move(steps)) {
  const auto ordered = [](const char* what, const std::array<float, 2>& range, float low,
                          float high) {
    if (!(range[0] > low && range[0] <= range[1] && range[1] <= high)) {
      throw UsageError("transforms", "random_resized_crop {} {}..{}; wanted {} < low <= high <= {}",
                       what, range[0], range[1], low, high);
    }
  };
  for (const Transform& step : steps_) {
    std::visit(Overloaded{
                   [](const Resize& t) { check_size("resize", t.height, t.width); },
                   [](const ResizeShorter& t) { check_size("resize_shorter", t.size, t.size); },
                   [](const CenterCrop& t) { check_size("center_crop", t.height, t.width); },
                   [](const RandomCrop& t) {
                     check_size("random_crop", t.height, t.width);
                     check_size("random_crop padding", t.padding + 1, t.padding + 1);
                   },
                   [](const RandomFlip& t) {
                     if (!(t.probability >= 0.0f && t.probability <= 1.0f)) {
                       throw UsageError("transforms", "random_flip probability {}; wanted 0..1",
                                        t.probability);
                     }
                   },
                   [&](const RandomResizedCrop& t) {
                     check_size("random_resized_crop", t.height, t.width);
                     ordered("area", t.area, 0.0f, 1.0f);
                     ordered("ratio", t.ratio, 0.0f, 1000.0f);
                   },
               },
               step);
  }
  const size_t means = normalize.mean.size(), stds = normalize.std.size();
  normalize_channels_ = std::max({means, stds, size_t{1}});
  for (const size_t n : {means, stds}) {
    if (n > 4 || (n > 1 && n != normalize_channels_)) {
      throw UsageError("normalize", "{} means and {} stds; give one, or one for each channel",
                       means, stds);
    }
  }
  for (size_t i = 0; i < scale_.size(); ++i) {
    const float mean = channel_value(normalize.mean, i, 0.0f);
    const float std = channel_value(normalize.std, i, 1.0f);
    if (!(std > 0.0f) || !std::isfinite(std) || !std::isfinite(mean)) {
      throw UsageError("normalize", "mean {} and std {}; std must be positive", mean, std);
    }
    scale_[i] = static_cast<float>(1.0 / (255.0 * static_cast<double>(std)));
    bias_[i] = static_cast<float>(-static_cast<double>(mean) / static_cast<double>(std));
  }
}

ImageShape Transforms::output_shape(std::optional<ImageShape> in, int64_t channels) const {
  if (channels < 1 || channels > 4 ||
      (normalize_channels_ != 1 && static_cast<int64_t>(normalize_channels_) != channels)) {
    throw UsageError("normalize",
                     "mean and std of {} channels for images of {} (at most 4); give one value, or "
                     "one for each channel",
                     normalize_channels_, channels);
  }
  std::optional<std::array<int64_t, 2>> size;
  if (in.has_value()) {
    size = {in->height, in->width};
  }
  for (const Transform& step : steps_) {
    std::visit(Overloaded{
                   [&](const ResizeShorter& t) {
                     if (size.has_value()) {
                       size = shorter_to({(*size)[0], (*size)[1], channels}, t.size);
                     }
                   },
                   [](const RandomFlip&) {},
                   [&](const RandomCrop& t) {
                     if (size.has_value() && ((*size)[0] + 2 * t.padding < t.height ||
                                              (*size)[1] + 2 * t.padding < t.width)) {
                       throw UsageError("transforms",
                                        "random_crop to {} x {} of images of {} x {} with padding "
                                        "{}; pad more or crop less",
                                        t.height, t.width, (*size)[0], (*size)[1], t.padding);
                     }
                     size = {t.height, t.width};
                   },
                   [&](const auto& t) {
                     size = {t.height, t.width};
                   },
               },
               step);
  }
  if (!size.has_value()) {
    throw UsageError("transforms",
                     "the images vary in size and no step makes one; add resize, or resize_shorter "
                     "and center_crop");
  }
  return {(*size)[0], (*size)[1], channels};
}

void Transforms::apply(const ImageView& image, const AugmentKey& key, const ImageShape& wanted,
                       std::span<float> out, Scratch& scratch) const {
  ImageView view = image;
  bool flip = false;
  // The buffer that `view` does not lie in (a crop inside the image moves no pixels).
  const auto buffer = [&]() -> std::vector<uint8_t>& {
    const std::vector<uint8_t>& first = scratch.buffers[0];
    const std::less<const uint8_t*> before;
    const bool in_first =
        !before(view.pixels, first.data()) && before(view.pixels, first.data() + first.size());
    return scratch.buffers[in_first ? 1 : 0];
  };
  for (size_t i = 0; i < steps_.size(); ++i) {
    std::visit(
        Overloaded{
            [&](const Resize& t) {
              view = resize(view, t.height, t.width, t.interpolation, buffer());
            },
            [&](const ResizeShorter& t) {
              const auto [height, width] = shorter_to(view.shape, t.size);
              view = resize(view, height, width, t.interpolation, buffer());
            },
            [&](const CenterCrop& t) {
              view = crop(view, center_offset(view.shape.height, t.height),
                          center_offset(view.shape.width, t.width), t.height, t.width, buffer());
            },
            [&](const RandomCrop& t) {
              const int64_t room_y = view.shape.height + 2 * t.padding - t.height;
              const int64_t room_x = view.shape.width + 2 * t.padding - t.width;
              if (room_y < 0 || room_x < 0) {
                throw UsageError("transforms",
                                 "random_crop to {} x {} of an image of {} with padding {}; resize "
                                 "first or pad more",
                                 t.height, t.width, view.shape, t.padding);
              }
              const PhiloxBlock random = draw(key, i, 0);
              view =
                  crop(view, below(random.word[0], room_y + 1) - t.padding,
                       below(random.word[1], room_x + 1) - t.padding, t.height, t.width, buffer());
            },
            [&](const RandomFlip& t) {
              if (uniform01(draw(key, i, 0).word[0]) < t.probability) {
                if (i + 1 == steps_.size()) {
                  flip = true;
                } else {
                  view = mirror(view, buffer());
                }
              }
            },
            [&](const RandomResizedCrop& t) {
              const Window w = random_window(t, view.shape, key, i);
              view = crop(view, w.top, w.left, w.height, w.width, buffer());
              view = resize(view, t.height, t.width, t.interpolation, buffer());
            },
        },
        steps_[i]);
  }
  if (view.shape != wanted ||
      static_cast<int64_t>(out.size()) != wanted.height * wanted.width * wanted.channels) {
    throw UsageError("transforms",
                     "image {} became {}, the model takes {}; add resize or crop to the transforms",
                     image.shape, view.shape, wanted);
  }
  write(view, flip, out.data());
}

void Transforms::write(const ImageView& image, bool flip, float* out) const {
  const auto [height, width, channels] = image.shape;
  const int64_t row_length = width * channels;
  const auto run = [&](const uint8_t* from, float* to, int64_t length) {
    int64_t at = 0;
    for (; at + kPeriod <= length; at += kPeriod) {
      for (int64_t j = 0; j < kPeriod; ++j) {
        to[at + j] = static_cast<float>(from[at + j]) * scale_[j] + bias_[j];
      }
    }
    for (int64_t j = 0; at + j < length; ++j) {
      to[at + j] = static_cast<float>(from[at + j]) * scale_[j] + bias_[j];
    }
  };
  if (!flip && image.row_stride == row_length) {
    run(image.pixels, out, height * row_length);
    return;
  }
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* from = image.row(y);
    float* to = out + y * row_length;
    if (!flip) {
      run(from, to, row_length);
    } else if (channels == 1) {
      for (int64_t x = 0; x < width; ++x) {
        to[x] = static_cast<float>(from[width - 1 - x]) * scale_[0] + bias_[0];
      }
    } else {
      for (int64_t x = 0; x < width; ++x) {
        for (int64_t c = 0; c < channels; ++c) {
          to[x * channels + c] =
              static_cast<float>(from[(width - 1 - x) * channels + c]) * scale_[c] + bias_[c];
        }
      }
    }
  }
}

}  // namespace lithe
