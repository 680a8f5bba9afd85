// PNG and JPEG files to bytes, through stb_image, with sizes checked before anything is decoded.
#pragma once

#include <filesystem>
#include <vector>

#include "data/dataset.h"

namespace lithe {

inline constexpr int64_t kMaxImageFileBytes = 256 * 1024 * 1024;

// Decodes to 8 bits and `channels` (1, 3; grey is repeated, alpha dropped) into `pixels`, which is
// resized and owns the view. EXIF orientation is ignored. Throws FileError, naming the file, for
// anything but a whole PNG or JPEG of at most kMaxImagePixels.
ImageView decode_image(const std::filesystem::path& path, int64_t channels,
                       std::vector<uint8_t>& pixels);

}  // namespace lithe
