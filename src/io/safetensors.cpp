#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "tensor/core/error.h"

namespace lithe {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr int64_t kLengthBytes = 8;

[[noreturn]] void refuse_pickle(const std::string& path) {
  throw FileError("safetensors",
                  "{}: is a pickle file, which could run code when read; convert it once with: "
                  "python3 -c \"import torch; from safetensors.torch import save_file; "
                  "save_file(torch.load('{}', weights_only=True), 'model.safetensors')\"",
                  path, path);
}

bool has_pickle_extension(const std::filesystem::path& path) {
  constexpr std::array<std::string_view, 6> kExtensions{".bin",  ".pt",  ".pth",
                                                        ".ckpt", ".pkl", ".pickle"};
  const std::string extension = path.extension().string();
  return std::find(kExtensions.begin(), kExtensions.end(), extension) != kExtensions.end();
}

// Only asked where the header is impossible: a header of 640 bytes starts like a pickle.
bool has_pickle_magic(std::span<const std::byte> bytes) {
  if (bytes.size() < 4) {
    return false;
  }
  const auto at = [&](size_t i) { return std::to_integer<int>(bytes[i]); };
  const bool is_zip = at(0) == 'P' && at(1) == 'K' && at(2) == 3 && at(3) == 4;
  const bool is_pickle = at(0) == 0x80 && at(1) >= 2 && at(1) <= 5;
  return is_zip || is_pickle;
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  if (has_pickle_extension(path)) {
    refuse_pickle(path.string());
  }
  SafetensorsFile out(path.string(), MappedFile(path));
  const std::span<const std::byte> bytes = out.file_.bytes();
  const int64_t size = out.file_.size();
  if (size < kLengthBytes + 2) {
    throw FileError("safetensors",
                    "{}: has {} bytes, a safetensors file has at least {}; download or write the "
                    "file again",
                    out.path_, size, kLengthBytes + 2);
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  const bool fits = header_bytes <= static_cast<uint64_t>(size - kLengthBytes) &&
                    header_bytes <= static_cast<uint64_t>(kMaxSafetensorsHeaderBytes);
  const bool is_object = std::to_integer<char>(bytes[kLengthBytes]) == '{';
  if ((!fits || !is_object) && has_pickle_magic(bytes)) {
    refuse_pickle(out.path_);
  }
  if (!fits) {
    throw FileError("safetensors",
                    "{}: header of {} bytes in a file of {} bytes, the limit is {}; the file is "
                    "truncated or not safetensors, download or write it again",
                    out.path_, header_bytes, size, kMaxSafetensorsHeaderBytes);
  }
  if (!is_object) {
    throw FileError("safetensors",
                    "{}: header of {} bytes does not begin with '{{'; this is not a safetensors "
                    "file, check its name",
                    out.path_, header_bytes);
  }
  out.data_begin_ = kLengthBytes + static_cast<int64_t>(header_bytes);
  const std::string_view json(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
                              static_cast<size_t>(header_bytes));
  out.header_ = parse_safetensors_header(json, size - out.data_begin_, out.path_);
  return out;
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> out;
  out.reserve(header_.tensors.size());
  for (const auto& entry : header_.tensors) {
    out.push_back(entry.first);
  }
  return out;
}

const TensorInfo& SafetensorsFile::info(std::string_view name) const {
  const auto found = header_.tensors.find(name);
  if (found == header_.tensors.end()) {
    throw FileError("safetensors",
                    "{}: holds {} tensors, none named '{}'; check that config.json belongs to this "
                    "file",
                    path_, header_.tensors.size(), name);
  }
  return found->second;
}

std::span<const std::byte> SafetensorsFile::bytes(std::string_view name) const {
  const TensorInfo& tensor = info(name);
  return file_.bytes().subspan(static_cast<size_t>(data_begin_ + tensor.begin),
                               static_cast<size_t>(tensor.end - tensor.begin));
}

Tensor SafetensorsFile::read(std::string_view name) const {
  const TensorInfo& tensor = info(name);
  const std::span<const std::byte> from = bytes(name);
  // A bool that is neither 0 nor 1 is undefined behaviour once it is read as one.
  if (tensor.dtype == DType::boolean &&
      std::any_of(from.begin(), from.end(), [](std::byte b) { return b > std::byte{1}; })) {
    throw FileError("safetensors",
                    "{}: BOOL tensor '{}' {} has bytes other than 0 and 1; write the file again",
                    path_, name, tensor.shape);
  }
  Tensor out(tensor.dtype, tensor.shape);
  if (!from.empty()) {
    std::memcpy(out.data(), from.data(), from.size());
  }
  return out;
}

}  // namespace lithe
