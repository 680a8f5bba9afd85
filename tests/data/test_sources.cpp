// IDX, CIFAR, synthetic images and the door to them.
#include <doctest/doctest.h>
#include <zlib.h>

#include "../io/temp_folder.h"
#include "data/cifar.h"
#include "data/idx.h"
#include "data/open.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

std::string big_endian(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16 & 255),
          static_cast<char>(value >> 8 & 255), static_cast<char>(value & 255)};
}

std::string idx_labels(std::string_view labels) {
  return big_endian(0x801) + big_endian(static_cast<uint32_t>(labels.size())) + std::string(labels);
}

// Pixel i of the file is i % 251.
std::string idx_images(uint32_t n, uint32_t height, uint32_t width) {
  std::string out = big_endian(0x803) + big_endian(n) + big_endian(height) + big_endian(width);
  for (uint32_t i = 0; i < n * height * width; ++i) {
    out += static_cast<char>(i % 251);
  }
  return out;
}

std::string gzip(const TempFolder& folder, std::string_view content) {
  const fs::path path = folder / "scratch.gz";
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
  gzclose(file);
  std::ifstream in(path, std::ios::binary);
  std::string out{std::istreambuf_iterator<char>(in), {}};
  fs::remove(path);
  return out;
}

constexpr const char* kImages = "train-images-idx3-ubyte";
constexpr const char* kLabels = "train-labels-idx1-ubyte";

TEST_CASE("idx: plain and gzip files give the same images") {
  const TempFolder folder;
  const std::string labels = idx_labels({"\x02\x00\x01", 3});
  const std::string images = idx_images(3, 5, 4);
  for (const bool compressed : {false, true}) {
    CAPTURE(compressed);
    folder.write(compressed ? "gz/train-images-idx3-ubyte.gz" : "plain/train-images-idx3-ubyte",
                 compressed ? gzip(folder, images) : images);
    folder.write(compressed ? "gz/train-labels-idx1-ubyte.gz" : "plain/train-labels-idx1-ubyte",
                 compressed ? gzip(folder, labels) : labels);
    const auto data = open_idx(folder / (compressed ? "gz" : "plain"), true);
    CHECK(data->size() == 3);
    CHECK(data->classes() == 3);
    CHECK(data->image_shape() == ImageShape{5, 4, 1});
    CHECK(data->label(0) == 2);
    CHECK(data->label(1) == 0);
    std::vector<uint8_t> scratch;
    const ImageView view = data->image(2, scratch);
    CHECK(view.row(0)[0] == 40);
    CHECK(view.row(4)[3] == 59);
  }
  CHECK(open_idx(folder / "gz", true, 10)->classes() == 10);
  CHECK(has(message_of<FileError>([&] { open_idx(folder / "gz", true, 2); }), "at least 3"));
  CHECK(has(message_of<FileError>([&] { open_idx(folder / "gz", false); }), "t10k-images"));
}

TEST_CASE("idx: hostile and truncated files are refused") {
  const TempFolder folder;
  const std::string labels = idx_labels({"\x00\x01", 2});
  const std::string images = idx_images(2, 30, 30);
  const auto refusal = [&](const std::string& image_file, const std::string& label_file) {
    folder.write(kImages, image_file);
    folder.write(kLabels, label_file);
    return message_of<FileError>([&] { open_idx(folder.path(), true); });
  };
  CHECK(refusal(images, labels) == "(nothing was thrown)");
  CHECK(has(refusal(images.substr(0, 100), labels), "ends after 100 of 1816 bytes"));
  CHECK(has(refusal(images + "x", labels), "goes on after the 1816 bytes"));
  CHECK(has(refusal(idx_labels("0123456789"), labels), "wanted 0x00000803"));
  CHECK(has(refusal(images, images), "wanted 0x00000801"));
  CHECK(has(refusal(images, idx_labels("abc")), "2 images"));
  CHECK(has(refusal(idx_images(0, 30, 30), idx_labels("")), "0 labels"));
  CHECK(has(refusal(idx_images(2, 0, 30), labels), "0 bytes of pixels"));
  CHECK(has(refusal("", labels), "ends after 0 of 16 bytes"));

  const std::string header = big_endian(0x803);
  const std::string most = big_endian(0xffffffff);
  CHECK(has(refusal(header + most + most + most, labels), "cannot hold them"));
  CHECK(has(refusal(header + big_endian(2) + most + big_endian(1), labels), "cannot hold them"));

  const std::string zipped = gzip(folder, images);
  for (size_t n = 0; n < zipped.size(); n += 3) {
    CAPTURE(n);
    CHECK(has(refusal(zipped.substr(0, n), labels), "[idx]"));
  }
  std::string damaged = zipped;
  damaged[damaged.size() - 6] = static_cast<char>(damaged[damaged.size() - 6] ^ 1);  // checksum
  CHECK(has(refusal(damaged, labels), "incorrect data check"));
  // Inflates to more than its header says: only the promised bytes are ever held.
  CHECK(has(refusal(gzip(folder, images + std::string(1 << 20, '\0')), labels), "goes on"));
}

TEST_CASE("idx: a missing Fashion-MNIST names the package") {
  const std::string message =
      message_of<FileError>([] { open_idx("/nonexistent/fashion-mnist", true); });
  CHECK(has(message, "/nonexistent/fashion-mnist/train-images-idx3-ubyte.gz"));
  CHECK(has(message, "dataset-fashion-mnist"));
}

std::string cifar_records(int count, int label_bytes, int classes) {
  std::string out;
  for (int n = 0; n < count; ++n) {
    if (label_bytes == 2) {
      out += '\x05';
    }
    out += static_cast<char>((n + 1) % classes);
    for (int i = 0; i < 3072; ++i) {
      out += static_cast<char>((i + n) % 253);
    }
  }
  return out;
}

TEST_CASE("cifar: both kinds, both folders, planes become interleaved channels") {
  const TempFolder folder;
  for (int i = 1; i <= 5; ++i) {
    folder.write(fmt::format("ten/data_batch_{}.bin", i), cifar_records(2, 1, 10));
  }
  folder.write("ten/batches.meta.txt", "airplane\nautomobile\nbird\n");
  folder.write("ten/test_batch.bin", cifar_records(3, 1, 10));
  folder.write("hundred/cifar-100-binary/train.bin", cifar_records(3, 2, 100));
  const auto train = open_cifar(folder / "ten", CifarKind::kCifar10, true);
  CHECK(train->size() == 10);
  CHECK(train->classes() == 10);
  CHECK(train->image_shape() == ImageShape{32, 32, 3});
  CHECK(train->class_name(1) == "automobile");
  CHECK(train->class_name(9) == "9");
  std::vector<uint8_t> scratch;
  const ImageView view = train->image(3, scratch);  // second record of the second file
  CHECK(train->label(3) == 2);
  for (const int c : {0, 1, 2}) {
    CHECK(view.row(7)[5 * 3 + c] == (c * 1024 + 7 * 32 + 5 + 1) % 253);
  }
  CHECK(open_cifar(folder / "ten", CifarKind::kCifar10, false)->size() == 3);
  const auto fine = open_cifar(folder / "hundred", CifarKind::kCifar100, true);
  CHECK(fine->classes() == 100);
  CHECK(fine->label(1) == 2);  // not the coarse 5

  const auto refusal = [&](const std::string& content) {
    folder.write("ten/test_batch.bin", content);
    return message_of<FileError>([&] { open_cifar(folder / "ten", CifarKind::kCifar10, false); });
  };
  const std::string good = cifar_records(2, 1, 10);
  CHECK(has(refusal(good.substr(0, 3072)), "3072 bytes, not a whole number of records of 3073"));
  CHECK(has(refusal(good + "x"), "6147 bytes"));
  CHECK(has(refusal(""), "0 bytes"));
  CHECK(has(refusal('\x0a' + good.substr(1)), "record 0 has label 10, there are 10 classes"));
  CHECK(
      has(message_of<FileError>([&] { open_cifar(folder / "none", CifarKind::kCifar100, false); }),
          "test.bin: no such file"));
}

TEST_CASE("synthetic images are a function of seed and index, and the splits differ") {
  DataSpec spec{.kind = "synthetic", .path = "", .synthetic_size = 100, .height = 9, .width = 7};
  spec.classes = 4;
  const auto bytes = [](const ImageDataset& data, int64_t index) {
    std::vector<uint8_t> scratch;
    data.image(index, scratch);
    return scratch;
  };
  const auto one = open_image_dataset(spec), two = open_image_dataset(spec);
  CHECK(one->image_shape() == ImageShape{9, 7, 3});
  CHECK(bytes(*one, 5).size() == 189);
  CHECK(bytes(*one, 5) == bytes(*two, 5));
  CHECK(bytes(*one, 5) != bytes(*one, 6));
  std::vector<int> counts(4);
  for (int64_t i = 0; i < 100; ++i) {
    REQUIRE(one->label(i) == two->label(i));
    ++counts.at(static_cast<size_t>(one->label(i)));
  }
  for (const int count : counts) {
    CHECK(count > 10);
  }
  spec.train = false;
  CHECK(bytes(*open_image_dataset(spec), 5) != bytes(*one, 5));
  spec.train = true;
  spec.seed = 1;
  CHECK(bytes(*open_image_dataset(spec), 5) != bytes(*one, 5));
  spec.classes = 0;
  CHECK(has(message_of<UsageError>([&] { open_image_dataset(spec); }), "must be positive"));
  spec.kind = "imagenet";
  CHECK(has(message_of<UsageError>([&] { open_image_dataset(spec); }), "'imagenet' is unknown"));
}

}  // namespace
}  // namespace lithe
