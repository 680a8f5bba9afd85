#include "data/idx.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "data/memory_dataset.h"
#include "tensor/core/checked.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

// Deflate cannot expand further than 1032:1, so a header that promises more is refused unread.
constexpr int64_t kMaxDeflateRatio = 1032;

// A file that zlib inflates on the way where it is gzip, and passes through where it is plain.
class GzipReader {
 public:
  explicit GzipReader(const fs::path& path)
      : path_(path.string()), file_(gzopen(path.c_str(), "rb")) {
    if (file_ == nullptr) {
      throw FileError("idx", "{}: cannot be opened; check the path and its permissions", path_);
    }
    gzbuffer(file_, 1 << 17);
  }
  GzipReader(const GzipReader&) = delete;
  GzipReader& operator=(const GzipReader&) = delete;
  ~GzipReader() { gzclose(file_); }

  // Fills `out` or throws; the sizes in the message are of the inflated data.
  void read(std::span<uint8_t> out) {
    const int64_t total = done_ + static_cast<int64_t>(out.size());
    constexpr size_t kChunk = size_t{1} << 30;
    while (!out.empty()) {
      const int n = gzread(file_, out.data(), static_cast<unsigned>(std::min(out.size(), kChunk)));
      if (n <= 0) {
        throw FileError("idx", "{}: {} after {} of {} bytes{}; download it again", path_,
                        n == 0 ? "ends" : "is damaged", done_, total, error());
      }
      done_ += n;
      out = out.subspan(static_cast<size_t>(n));
    }
  }
  // Also where zlib compares the checksum.
  void expect_end() {
    uint8_t extra = 0;
    const int n = gzread(file_, &extra, 1);
    if (n != 0 || !error().empty()) {
      throw FileError("idx",
                      "{}: {} after the {} bytes that its header promises{}; download it again",
                      path_, n > 0 ? "goes on" : "is damaged", done_, error());
    }
  }

 private:
  std::string error() const {
    int code = Z_OK;
    const char* text = gzerror(file_, &code);
    return code == Z_OK || code == Z_STREAM_END ? "" : fmt::format(" ({})", text);
  }

  std::string path_;
  gzFile file_;
  int64_t done_ = 0;
};

struct Idx {
  std::array<int64_t, 3> dims{1, 1, 1};
  std::vector<uint8_t> values;
};

int64_t big_endian(const uint8_t* at) {
  return int64_t{at[0]} << 24 | int64_t{at[1]} << 16 | int64_t{at[2]} << 8 | int64_t{at[3]};
}

Idx read_idx(const fs::path& path, int rank) {
  GzipReader file(path);
  std::array<uint8_t, 16> header{};
  const int64_t header_bytes = 4 + 4 * rank;
  file.read(std::span(header).first(static_cast<size_t>(header_bytes)));
  if (big_endian(header.data()) != 0x800 + rank) {
    throw FileError("idx", "{}: magic number 0x{:08x}, wanted 0x{:08x}; name the IDX file of {}",
                    path.string(), big_endian(header.data()), 0x800 + rank,
                    rank == 3 ? "images" : "labels");
  }
  Idx out;
  int64_t total = 1;
  for (int i = 0; i < rank; ++i) {
    const int64_t dim = big_endian(header.data() + 4 + 4 * i);
    out.dims[static_cast<size_t>(i)] = dim;
    // Three 32-bit factors may pass 2^63; capping keeps the comparison below meaningful.
    total = dim != 0 && total > INT64_MAX / dim ? INT64_MAX : total * dim;
  }
  const auto file_bytes = static_cast<int64_t>(fs::file_size(path));
  if (total / kMaxDeflateRatio > file_bytes) {
    throw FileError("idx",
                    "{}: header promises {} bytes ({} x {} x {}), a file of {} bytes cannot hold "
                    "them; download it again",
                    path.string(), total, out.dims[0], out.dims[1], out.dims[2], file_bytes);
  }
  out.values.resize(static_cast<size_t>(total));
  file.read(out.values);
  file.expect_end();
  return out;
}

fs::path find_file(const fs::path& folder, const std::string& stem) {
  for (const char* extension : {"", ".gz"}) {
    fs::path path = folder / (stem + extension);
    if (fs::is_regular_file(path)) {
      return path;
    }
  }
  const fs::path missing = folder / (stem + ".gz");
  if (missing.string().find("fashion-mnist") != std::string::npos) {
    throw FileError("idx",
                    "{}: no such file; install it with: sudo apt install dataset-fashion-mnist",
                    missing.string());
  }
  throw FileError("idx", "{}: no such file, with or without .gz; name the folder of the four files",
                  missing.string());
}

}  // namespace

std::unique_ptr<ImageDataset> open_idx(const fs::path& folder, bool train, int64_t classes) {
  const std::string split = train ? "train" : "t10k";
  const fs::path image_path = find_file(folder, split + "-images-idx3-ubyte");
  const fs::path label_path = find_file(folder, split + "-labels-idx1-ubyte");
  Idx labels = read_idx(label_path, 1);
  Idx images = read_idx(image_path, 3);
  if (images.dims[0] != labels.dims[0]) {
    throw FileError("idx", "{}: {} images, {}: {} labels; take both from one source",
                    image_path.string(), images.dims[0], label_path.string(), labels.dims[0]);
  }
  return std::make_unique<MemoryDataset>(
      image_path.string(), ImageShape{images.dims[1], images.dims[2], 1}, std::move(images.values),
      std::move(labels.values), classes);
}

}  // namespace lithe
