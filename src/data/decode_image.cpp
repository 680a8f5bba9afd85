#include "data/decode_image.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>

namespace {

// One decoded buffer: 64 Mpixel, 4 channels of 16 bits and PNG's filter bytes. stb_image grows its
// inflate buffer with the stream, so this is what stops a decompression bomb.
constexpr size_t kMaxDecodeBytes = size_t{640} << 20;

void* bounded_malloc(size_t bytes) {
  return bytes > kMaxDecodeBytes ? nullptr : std::malloc(bytes);
}
void* bounded_realloc(void* block, size_t bytes) {
  return bytes > kMaxDecodeBytes ? nullptr : std::realloc(block, bytes);
}

}  // namespace

#define STBI_MALLOC(bytes) bounded_malloc(bytes)
#define STBI_REALLOC(block, bytes) bounded_realloc(block, bytes)
#define STBI_FREE(block) std::free(block)
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace lithe {
namespace {

std::vector<uint8_t> read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in || !std::filesystem::is_regular_file(path)) {
    throw FileError("image", "{}: cannot be opened; check the path and its permissions",
                    path.string());
  }
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path));
  if (bytes > kMaxImageFileBytes) {
    throw FileError("image", "{}: {} bytes, the limit is {}; shrink the image", path.string(),
                    bytes, kMaxImageFileBytes);
  }
  std::vector<uint8_t> out(static_cast<size_t>(bytes));
  if (!in.read(reinterpret_cast<char*>(out.data()), bytes)) {
    throw FileError("image", "{}: {} of {} bytes could be read; check the disk", path.string(),
                    in.gcount(), bytes);
  }
  return out;
}

struct StbFree {
  void operator()(stbi_uc* pixels) const { stbi_image_free(pixels); }
};

}  // namespace

ImageView decode_image(const std::filesystem::path& path, int64_t channels,
                       std::vector<uint8_t>& pixels) {
  const std::vector<uint8_t> file = read_file(path);
  const auto file_bytes = static_cast<int>(file.size());
  int width = 0, height = 0, stored_channels = 0;
  if (stbi_info_from_memory(file.data(), file_bytes, &width, &height, &stored_channels) == 0) {
    throw FileError("image",
                    "{}: {} bytes cannot be read as PNG or JPEG ({}); remove or convert it",
                    path.string(), file_bytes, stbi_failure_reason());
  }
  if (int64_t{width} * height > kMaxImagePixels) {
    throw FileError("image", "{}: {} x {} pixels, the limit is {} pixels; shrink the image",
                    path.string(), width, height, kMaxImagePixels);
  }
  const std::unique_ptr<stbi_uc, StbFree> decoded(stbi_load_from_memory(
      file.data(), file_bytes, &width, &height, &stored_channels, static_cast<int>(channels)));
  if (decoded == nullptr) {
    throw FileError("image", "{}: {} x {} pixels in {} bytes cannot be decoded ({}); replace it",
                    path.string(), width, height, file_bytes, stbi_failure_reason());
  }
  const int64_t row = width * channels;
  pixels.assign(decoded.get(), decoded.get() + row * height);
  return {pixels.data(), {height, width, channels}, row};
}

}  // namespace lithe
