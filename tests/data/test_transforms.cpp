#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "../io/temp_folder.h"
#include "data/transforms.h"

namespace lithe {
namespace {

struct Image {
  ImageShape shape;
  std::vector<uint8_t> pixels;
  ImageView view() const { return {pixels.data(), shape, shape.width * shape.channels}; }
};

Image pattern(int64_t height, int64_t width, int64_t channels) {
  Image out{{height, width, channels}, {}};
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < channels; ++c) {
        out.pixels.push_back(
            static_cast<uint8_t>((y * 37 + x * 61 + c * 101 + (x * y * 13) % 50) % 256));
      }
    }
  }
  return out;
}

// The result as bytes (the inverse of the default normalisation).
std::vector<int> bytes_of(const Transforms& transforms, const Image& image, ImageShape wanted,
                          const AugmentKey& key = {}) {
  std::vector<float> out(static_cast<size_t>(wanted.height * wanted.width * wanted.channels), -1);
  Transforms::Scratch scratch;
  transforms.apply(image.view(), key, wanted, out, scratch);
  std::vector<int> bytes;
  for (const float value : out) {
    bytes.push_back(static_cast<int>(std::lround(value * 255.0f)));
  }
  return bytes;
}

// Expected values: Image.resize of Pillow 12.0.0 on the same pattern.
TEST_CASE("resize is bit-equal to Pillow") {
  struct Golden {
    int64_t height, width, channels, to_height, to_width;
    Interpolation interpolation;
    std::vector<uint8_t> expected;
  };
  const Golden cases[] = {
      {9,
       7,
       1,
       4,
       3,
       Interpolation::kBilinear,
       {90, 108, 120, 133, 84, 160, 110, 127, 95, 95, 148, 100}},
      {5,
       4,
       3,
       7,
       6,
       Interpolation::kBicubic,
       {0,   95,  213, 23,  123, 105, 68,  174, 0,   108, 238, 51,  162, 127, 100, 198, 10,  129,
        16,  114, 251, 45,  165, 136, 99,  199, 28,  153, 128, 88,  120, 84,  143, 81,  66,  174,
        42,  147, 195, 80,  165, 129, 141, 147, 72,  202, 29,  123, 95,  60,  187, 0,   122, 229,
        68,  186, 14,  113, 93,  59,  172, 0,   115, 204, 32,  136, 111, 91,  192, 18,  136, 237,
        93,  212, 31,  156, 122, 87,  188, 34,  159, 70,  78,  195, 40,  124, 122, 47,  152, 57,
        124, 239, 70,  182, 147, 112, 192, 55,  174, 21,  104, 224, 22,  147, 104, 73,  172, 0,
        146, 255, 92,  190, 155, 121, 191, 52,  170, 39,  107, 225, 41,  157, 123, 87,  188, 15}},
      {11,
       13,
       3,
       3,
       2,
       Interpolation::kBicubic,
       {111, 126, 130, 123, 125, 143, 116, 114, 113, 109, 133, 124, 131, 105, 124, 120, 116, 141}},
      {3, 3, 1, 5, 7, Interpolation::kBilinear, {0,   9,   35,  61,  87,  113, 122, 15,  25,
                                                 53,  81,  109, 137, 147, 37,  48,  79,  111,
                                                 143, 174, 185, 59,  71,  106, 141, 163, 185,
                                                 193, 74,  86,  124, 161, 177, 193, 198}},
      {8, 6, 1, 8, 3, Interpolation::kBicubic, {33,  161, 153, 91,  90,  51, 131, 114,
                                                96,  147, 50,  148, 164, 69, 170, 90,
                                                115, 102, 130, 139, 147, 61, 165, 47}},
  };
  for (const Golden& c : cases) {
    CAPTURE(c.height);
    const Image image = pattern(c.height, c.width, c.channels);
    std::vector<uint8_t> out;
    const ImageView view = resize(image.view(), c.to_height, c.to_width, c.interpolation, out);
    CHECK(view.shape == ImageShape{c.to_height, c.to_width, c.channels});
    CHECK(out == c.expected);
  }
}

TEST_CASE("resize: to the same size nothing changes, strides are followed, sizes are checked") {
  const Image image = pattern(6, 5, 3);
  std::vector<uint8_t> out;
  for (const auto interpolation : {Interpolation::kBilinear, Interpolation::kBicubic}) {
    resize(image.view(), 6, 5, interpolation, out);
    CHECK(out == image.pixels);
  }
  Image inner = pattern(3, 2, 3);
  for (int64_t y = 0; y < 3; ++y) {
    std::copy_n(image.view().row(y + 1) + 6, 6, inner.pixels.begin() + y * 6);
  }
  std::vector<uint8_t> from_window, from_copy;
  resize({image.view().row(1) + 6, {3, 2, 3}, 15}, 5, 4, Interpolation::kBicubic, from_window);
  resize(inner.view(), 5, 4, Interpolation::kBicubic, from_copy);
  CHECK(from_window == from_copy);
  CHECK(has(
      message_of<UsageError>([&] { resize(image.view(), 0, 5, Interpolation::kBilinear, out); }),
      "must be positive"));
  CHECK(has(message_of<UsageError>(
                [&] { resize(image.view(), 1 << 20, 1 << 20, Interpolation::kBilinear, out); }),
            "the limit is 67108864 pixels"));
}

TEST_CASE("normalise: per channel, one for all, flipped, and rows longer than a period") {
  for (const int64_t channels : {1, 2, 3, 4}) {
    for (const int64_t width : {1, 5, 40}) {
      for (const bool flip : {false, true}) {
        CAPTURE(channels);
        CAPTURE(width);
        const Image image = pattern(3, width, channels);
        Normalize normalize{{}, {}};
        for (int64_t c = 0; c < channels; ++c) {
          normalize.mean.push_back(0.1f * static_cast<float>(c + 1));
          normalize.std.push_back(0.5f + 0.25f * static_cast<float>(c));
        }
        const Transforms transforms({RandomFlip{flip ? 1.0f : 0.0f}}, normalize);
        REQUIRE(transforms.output_shape(image.shape, channels) == image.shape);
        std::vector<float> out(image.pixels.size());
        Transforms::Scratch scratch;
        transforms.apply(image.view(), {}, image.shape, out, scratch);
        double worst = 0;
        for (int64_t y = 0; y < 3; ++y) {
          for (int64_t x = 0; x < width; ++x) {
            for (int64_t c = 0; c < channels; ++c) {
              const int64_t from_x = flip ? width - 1 - x : x;
              const auto n = static_cast<size_t>(c);
              const double expected =
                  (image.view().row(y)[from_x * channels + c] / 255.0 - normalize.mean[n]) /
                  normalize.std[n];
              worst = std::max(
                  worst,
                  std::abs(expected - out[static_cast<size_t>((y * width + x) * channels + c)]));
            }
          }
        }
        CHECK(worst < 5e-7);
      }
    }
  }
  CHECK(has(message_of<UsageError>([] { Transforms({}, {{0.5f}, {0.0f}}); }), "must be positive"));
  CHECK(has(message_of<UsageError>([] {
              Transforms({}, {{0, 0, 0}, {1, 1}});
            }),
            "3 means and 2 stds"));
  const Transforms rgb({}, {{0, 0, 0}, {1}});
  CHECK(has(message_of<UsageError>([&] {
              rgb.output_shape(ImageShape{2, 2, 1}, 1);
            }),
            "3 channels for images of 1"));
}

TEST_CASE("crops: centre with torchvision's rounding, zeros outside, windows inside") {
  const Image image = pattern(6, 9, 1);
  const auto pixel = [&](int64_t y, int64_t x) { return int{image.view().row(y)[x]}; };
  // (6 - 3) / 2 = 1.5 and (9 - 4) / 2 = 2.5 both round to 2.
  const auto cropped = bytes_of(Transforms({CenterCrop{3, 4}}), image, {3, 4, 1});
  CHECK(cropped[0] == pixel(2, 2));
  CHECK(cropped[11] == pixel(4, 5));
  const auto padded = bytes_of(Transforms({CenterCrop{9, 9}}), image, {9, 9, 1});
  CHECK(padded[8] == 0);
  CHECK(padded[9] == pixel(0, 0));
  CHECK(padded[80] == 0);

  const Transforms random({RandomCrop{4, 4, 2}});
  std::set<std::vector<int>> seen;
  bool saw_padding = false;
  for (uint64_t index = 0; index < 400; ++index) {
    const auto out = bytes_of(random, image, {4, 4, 1}, {1, 0, index});
    bool found = false;
    for (int64_t top = -2; top <= 4 && !found; ++top) {
      for (int64_t left = -2; left <= 7 && !found; ++left) {
        found = true;
        for (int64_t i = 0; i < 16 && found; ++i) {
          const int64_t y = top + i / 4, x = left + i % 4;
          const bool inside = y >= 0 && y < 6 && x >= 0 && x < 9;
          found = out[static_cast<size_t>(i)] == (inside ? pixel(y, x) : 0);
          saw_padding |= !inside;
        }
      }
    }
    REQUIRE(found);
    seen.insert(out);
  }
  CHECK(seen.size() == 70);  // all 7 x 10 placements
  CHECK(saw_padding);
  CHECK(has(message_of<UsageError>([&] {
              Transforms({RandomCrop{20, 4, 2}}).output_shape(image.shape, 1);
            }),
            "pad more or crop less"));
}

TEST_CASE("random choices depend on seed, epoch and index, and on nothing else") {
  const Image image = pattern(20, 20, 3);
  const Transforms transforms(
      {RandomResizedCrop{8, 8}, RandomFlip{}, RandomCrop{8, 8, 1}, RandomFlip{}});
  const ImageShape wanted{8, 8, 3};
  const auto first = bytes_of(transforms, image, wanted, {1, 2, 3});
  CHECK(first == bytes_of(transforms, image, wanted, {1, 2, 3}));
  CHECK(first != bytes_of(transforms, image, wanted, {2, 2, 3}));
  CHECK(first != bytes_of(transforms, image, wanted, {1, 3, 3}));
  CHECK(first != bytes_of(transforms, image, wanted, {1, 2, 4}));

  const Transforms flip({RandomFlip{0.25f}});
  int flipped = 0;
  for (uint64_t index = 0; index < 4000; ++index) {
    flipped += bytes_of(flip, image, image.shape, {7, 0, index})[0] != image.pixels[0] ? 1 : 0;
  }
  CHECK(std::abs(flipped - 1000) < 110);  // 4 standard deviations of 27
}

TEST_CASE("steps one after another give what each alone gives, whatever buffer it lies in") {
  const Image image = pattern(23, 31, 3);
  const auto alone = [](const Image& in, const Transform& step, ImageShape shape) {
    Image out{shape, {}};
    for (const int value : bytes_of(Transforms({step}), in, shape)) {
      out.pixels.push_back(static_cast<uint8_t>(value));
    }
    return out;
  };
  const std::vector<Transform> steps{Resize{17, 19},     CenterCrop{15, 15}, ResizeShorter{9},
                                     CenterCrop{7, 7},   Resize{12, 12},     RandomFlip{1.0f},
                                     CenterCrop{14, 14}, CenterCrop{6, 6},   Resize{5, 5}};
  const std::vector<ImageShape> shapes{{17, 19, 3}, {15, 15, 3}, {9, 9, 3}, {7, 7, 3}, {12, 12, 3},
                                       {12, 12, 3}, {14, 14, 3}, {6, 6, 3}, {5, 5, 3}};
  Image expected = image;
  for (size_t i = 0; i < steps.size(); ++i) {
    expected = alone(expected, steps[i], shapes[i]);
  }
  const std::vector<int> out = bytes_of(Transforms(steps), image, shapes.back());
  CHECK(std::equal(out.begin(), out.end(), expected.pixels.begin(), expected.pixels.end()));
}

TEST_CASE("random resized crop: windows inside the image, whatever its shape") {
  Image flat{{1, 200, 1}, std::vector<uint8_t>(200, 77)};
  for (const ImageShape shape : {ImageShape{1, 200, 1}, {200, 1, 1}, {1, 1, 1}, {10, 20, 1}}) {
    flat.shape = shape;
    for (uint64_t index = 0; index < 50; ++index) {
      const auto out =
          bytes_of(Transforms({RandomResizedCrop{4, 3}}), flat, {4, 3, 1}, {0, 0, index});
      REQUIRE(out == std::vector<int>(12, 77));
    }
  }
  CHECK(has(message_of<UsageError>([] {
              Transforms({RandomResizedCrop{4, 4, {0.5f, 0.2f}}});
            }),
            "area 0.5..0.2"));
}

TEST_CASE("output shape: known, or made known, or refused") {
  CHECK(Transforms().output_shape(ImageShape{5, 6, 3}, 3) == ImageShape{5, 6, 3});
  CHECK(Transforms({ResizeShorter{10}}).output_shape(ImageShape{20, 35, 3}, 3) ==
        ImageShape{10, 17, 3});
  CHECK(Transforms({ResizeShorter{10}, CenterCrop{8, 8}}).output_shape(std::nullopt, 3) ==
        ImageShape{8, 8, 3});
  CHECK(has(message_of<UsageError>([] {
              Transforms({ResizeShorter{10}, RandomFlip{}}).output_shape(std::nullopt, 3);
            }),
            "the images vary in size"));
  const Image image = pattern(4, 4, 1);
  CHECK(has(message_of<UsageError>([&] {
              bytes_of(Transforms(), image, {4, 5, 1});
            }),
            "the model takes 4x5x1"));
  CHECK(has(message_of<UsageError>([] { Transforms({Resize{0, 4}}); }), "sides must be in 1.."));
  CHECK(has(message_of<UsageError>([] { Transforms({RandomFlip{2}}); }), "probability 2"));
}

}  // namespace
}  // namespace lithe
