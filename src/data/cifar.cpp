#include "data/cifar.h"

#include <fstream>

#include "data/memory_dataset.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSide = 32;
constexpr int64_t kPlane = kSide * kSide;
constexpr int64_t kPixels = 3 * kPlane;
constexpr int64_t kMaxFileBytes = int64_t{1} << 30;  // the official files have at most 154 MB

struct Layout {
  const char* archive_folder;
  std::vector<const char*> files;
  const char* names_file;
  int64_t label_bytes;  // the last one is used
  int64_t classes;
};

Layout layout_of(CifarKind kind, bool train) {
  if (kind == CifarKind::kCifar100) {
    return {"cifar-100-binary", {train ? "train.bin" : "test.bin"}, "fine_label_names.txt", 2, 100};
  }
  Layout out{"cifar-10-batches-bin", {"test_batch.bin"}, "batches.meta.txt", 1, 10};
  if (train) {
    out.files = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                 "data_batch_5.bin"};
  }
  return out;
}

void read_batch(const fs::path& path, const Layout& layout, std::vector<uint8_t>& pixels,
                std::vector<uint8_t>& labels) {
  std::ifstream in(path, std::ios::binary);
  if (!in || !fs::is_regular_file(path)) {
    throw FileError("cifar", "{}: no such file; name the folder of the binary version's .bin files",
                    path.string());
  }
  const auto bytes = static_cast<int64_t>(fs::file_size(path));
  const int64_t record = layout.label_bytes + kPixels;
  if (bytes == 0 || bytes % record != 0 || bytes > kMaxFileBytes) {
    throw FileError("cifar",
                    "{}: {} bytes, not a whole number of records of {} bytes (at most {}); "
                    "download it again, in the binary version",
                    path.string(), bytes, record, kMaxFileBytes);
  }
  std::vector<uint8_t> raw(static_cast<size_t>(bytes));
  if (!in.read(reinterpret_cast<char*>(raw.data()), bytes)) {
    throw FileError("cifar", "{}: {} of {} bytes could be read; check the disk", path.string(),
                    in.gcount(), bytes);
  }
  const size_t first = labels.size();
  const int64_t count = bytes / record;
  labels.resize(first + static_cast<size_t>(count));
  pixels.resize(pixels.size() + static_cast<size_t>(count * kPixels));
  for (int64_t n = 0; n < count; ++n) {
    const uint8_t* from = raw.data() + n * record;
    const uint8_t label = from[layout.label_bytes - 1];
    if (label >= layout.classes) {
      throw FileError("cifar",
                      "{}: record {} has label {}, there are {} classes; check that this is the "
                      "right kind of CIFAR",
                      path.string(), n, label, layout.classes);
    }
    labels[first + static_cast<size_t>(n)] = label;
    from += layout.label_bytes;
    uint8_t* to = pixels.data() + (static_cast<int64_t>(first) + n) * kPixels;
    for (int64_t i = 0; i < kPlane; ++i) {  // CHW to HWC
      for (int64_t c = 0; c < 3; ++c) {
        to[i * 3 + c] = from[c * kPlane + i];
      }
    }
  }
}

// One name a line; the file is optional and its absence leaves numbers.
std::vector<std::string> read_names(const fs::path& path, int64_t classes) {
  std::vector<std::string> out;
  std::ifstream in(path);
  for (std::string line; static_cast<int64_t>(out.size()) < classes && in >> line;) {
    out.push_back(line);
  }
  return out;
}

}  // namespace

std::unique_ptr<ImageDataset> open_cifar(const fs::path& folder, CifarKind kind, bool train) {
  const Layout layout = layout_of(kind, train);
  const fs::path archive = folder / layout.archive_folder;
  const fs::path base = fs::is_directory(archive) ? archive : folder;
  std::vector<uint8_t> pixels;
  std::vector<uint8_t> labels;
  for (const char* file : layout.files) {
    read_batch(base / file, layout, pixels, labels);
  }
  return std::make_unique<MemoryDataset>(base.string(), ImageShape{kSide, kSide, 3},
                                         std::move(pixels), std::move(labels), layout.classes,
                                         read_names(base / layout.names_file, layout.classes));
}

}  // namespace lithe
