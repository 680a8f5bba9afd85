#include <doctest/doctest.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wunused-function"
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

#include "../io/temp_folder.h"
#include "data/decode_image.h"
#include "data/image_folder.h"
#include "data/open.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

void append(void* context, void* data, int size) {
  static_cast<std::string*>(context)->append(static_cast<const char*>(data),
                                             static_cast<size_t>(size));
}

std::vector<uint8_t> gradient(int height, int width, int channels) {
  std::vector<uint8_t> out;
  for (int i = 0; i < height * width; ++i) {
    for (int c = 0; c < channels; ++c) {
      out.push_back(static_cast<uint8_t>(i * 3 + c * 40));
    }
  }
  return out;
}

std::string png(int height, int width, int channels) {
  std::string out;
  const std::vector<uint8_t> pixels = gradient(height, width, channels);
  stbi_write_png_to_func(append, &out, width, height, channels, pixels.data(), width * channels);
  return out;
}

std::string jpeg(int height, int width) {
  std::string out;
  const std::vector<uint8_t> pixels(static_cast<size_t>(height * width * 3), 200);
  stbi_write_jpg_to_func(append, &out, width, height, 3, pixels.data(), 95);
  return out;
}

TEST_CASE("decode: PNG exactly, JPEG closely, grey and alpha to the wanted channels") {
  const TempFolder folder;
  std::vector<uint8_t> pixels;
  const ImageView view = decode_image(folder.write("a.png", png(6, 5, 3)), 3, pixels);
  CHECK(view.shape == ImageShape{6, 5, 3});
  CHECK(pixels == gradient(6, 5, 3));
  decode_image(folder.write("grey.png", png(4, 4, 1)), 3, pixels);
  CHECK(pixels[9] == pixels[10]);
  CHECK(pixels[9] == 9);
  decode_image(folder.write("alpha.png", png(4, 4, 4)), 3, pixels);
  CHECK(pixels[5] == gradient(4, 4, 4)[6]);
  CHECK(decode_image(folder / "a.png", 1, pixels).shape == ImageShape{6, 5, 1});
  CHECK(decode_image(folder.write("a.jpg", jpeg(10, 20)), 3, pixels).shape ==
        ImageShape{10, 20, 3});
  for (const uint8_t value : pixels) {
    REQUIRE(std::abs(value - 200) <= 2);
  }
}

TEST_CASE("decode: files that are damaged, too large or something else") {
  const TempFolder folder;
  std::vector<uint8_t> pixels;
  const auto refusal = [&](std::string_view content) {
    const fs::path path = folder.write("x.png", content);
    return message_of<FileError>([&] { decode_image(path, 3, pixels); });
  };
  CHECK(has(refusal(""), "0 bytes cannot be read as PNG or JPEG"));
  CHECK(has(refusal("GIF89a not allowed here"), "cannot be read as PNG or JPEG"));
  const std::string whole = png(40, 40, 3);
  // The last 12 bytes are the end marker, the 4 before it a checksum that stb_image does not read.
  for (size_t n = 0; n + 16 < whole.size(); n += 5) {
    CAPTURE(n);
    CHECK(has(refusal(std::string_view(whole).substr(0, n)), "[image]"));
  }
  // 10000 x 10000 in the header: refused before a pixel is decoded.
  std::string huge = whole;
  for (const size_t at : {16u, 20u}) {
    huge[at] = 0;
    huge[at + 1] = 0;
    huge[at + 2] = '\x27';
    huge[at + 3] = '\x10';
  }
  CHECK(has(refusal(huge), "10000 x 10000 pixels, the limit is 67108864"));
  // Every byte of both formats, damaged: a picture or a FileError, nothing else.
  for (const std::string& good : {png(9, 7, 3), jpeg(17, 19)}) {
    for (size_t at = 0; at < good.size(); ++at) {
      std::string content = good;
      content[at] = static_cast<char>(content[at] ^ 0x55);
      refusal(content);
    }
    for (size_t n = 0; n < good.size(); ++n) {
      refusal(std::string_view(good).substr(0, n));
    }
  }
  CHECK(has(message_of<FileError>([&] { decode_image(folder / "none.png", 3, pixels); }),
            "cannot be opened"));
  CHECK(has(message_of<FileError>([&] { decode_image(folder.path(), 3, pixels); }),
            "cannot be opened"));
}

TEST_CASE("image folder: sorted classes and files, read when asked for") {
  const TempFolder folder;
  folder.write("dog/2.png", png(3, 3, 3));
  folder.write("dog/sub/1.JPG", jpeg(8, 4));
  folder.write("cat/b.jpeg", jpeg(5, 6));
  folder.write("cat/a.png", png(2, 7, 1));
  folder.write("cat/notes.txt", "no image");
  folder.write("cat/.hidden.png", "no image");
  folder.write(".git/x.png", "no class");
  folder.write("loose.png", "no class");
  const auto data = open_image_folder(folder.path(), true);
  CHECK(data->size() == 4);
  CHECK(data->classes() == 2);
  CHECK(data->class_name(0) == "cat");
  CHECK(!data->image_shape().has_value());
  CHECK(data->label(1) == 0);
  CHECK(data->label(2) == 1);
  std::vector<uint8_t> scratch;
  CHECK(data->image(0, scratch).shape == ImageShape{2, 7, 3});
  CHECK(data->image(1, scratch).shape == ImageShape{5, 6, 3});
  CHECK(data->image(2, scratch).shape == ImageShape{3, 3, 3});
  CHECK(data->image(3, scratch).shape == ImageShape{8, 4, 3});
  fs::remove(folder / "cat/a.png");  // nothing was held in memory
  CHECK(
      has(message_of<FileError>([&] { data->image(0, scratch); }), "cat/a.png: cannot be opened"));
}

TEST_CASE("image folder: splits share the classes of train") {
  const TempFolder folder;
  for (const char* file : {"train/a/1.png", "train/b/1.png", "train/c/1.png", "val/c/1.png"}) {
    folder.write(file, png(2, 2, 3));
  }
  const auto open = [&](bool train) {
    return open_image_dataset({.kind = "folder", .path = folder.path().string(), .train = train});
  };
  CHECK(open(true)->size() == 3);
  const auto val = open(false);
  CHECK(val->size() == 1);
  CHECK(val->classes() == 3);
  CHECK(val->label(0) == 2);
  folder.write("val/z/1.png", png(2, 2, 3));
  CHECK(has(message_of<FileError>([&] { open(false); }), "val/z: is none of the 3 classes"));
  fs::remove_all(folder / "val");
  CHECK(has(message_of<FileError>([&] { open(false); }), "has train/ but none of val/"));
  fs::remove_all(folder / "train");
  CHECK(has(message_of<FileError>([&] { open(true); }), "has no subfolders"));
  fs::create_directories(folder / "empty");
  CHECK(has(message_of<FileError>([&] { open(true); }), "no .png, .jpg or .jpeg files"));
  CHECK(has(message_of<FileError>([&] { open_image_folder(folder / "none", true); }),
            "no such folder"));
  CHECK(has(message_of<UsageError>([&] { open_image_folder(folder.path(), true, 2); }),
            "2 channels"));
}

}  // namespace
}  // namespace lithe
