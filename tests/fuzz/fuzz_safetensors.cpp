// Any bytes as a safetensors file, or, when they begin with '{', as the index of a sharded one: all
// tensors read, or a FileError says why not.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "io/safetensors.h"
#include "tensor/core/error.h"

namespace {

// A file in memory: a disk would set the pace.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : fd_(::memfd_create("fuzz", 0)) {
    if (fd_ < 0 || ::write(fd_, data, size) != static_cast<ssize_t>(size)) {
      std::abort();
    }
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(fd_); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

// A folder with the shards "a" and "b", each with a tensor of its name; removed at exit.
class ShardFolder {
 public:
  ShardFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lithe-fuzz-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) {
      std::abort();
    }
    path_ = pattern;
    for (const char* name : {"a", "b"}) {
      const lithe::NamedTensor tensor{name, lithe::Tensor(lithe::DType::u8, {2})};
      lithe::write_safetensors(path_ / name, std::span(&tensor, 1));
    }
  }
  ShardFolder(const ShardFolder&) = delete;
  ShardFolder& operator=(const ShardFolder&) = delete;
  ~ShardFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void read_file(const uint8_t* data, size_t size) {
  const MemoryFile memory(data, size);
  const lithe::SafetensorsFile file = lithe::SafetensorsFile::open(memory.path());
  size_t bytes = 0;
  for (const std::string& name : file.names()) {
    const std::span<const std::byte> content = file.bytes(name);
    bytes += content.size();
    try {
      const lithe::Tensor tensor = file.read(name);
      if (static_cast<size_t>(tensor.bytes()) != content.size()) {
        std::abort();
      }
    } catch (const lithe::FileError&) {  // BOOL bytes other than 0 and 1
    }
  }
  // Without holes and overlaps, the tensors are the file's tail.
  if (bytes > size - 8) {
    std::abort();
  }
}

void read_index(const uint8_t* data, size_t size) {
  static const ShardFolder folder;
  {
    std::ofstream index(folder.path() / "model.safetensors.index.json", std::ios::binary);
    index.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  }
  const lithe::SafetensorsFolder weights = lithe::SafetensorsFolder::open(folder.path());
  for (const std::string& name : weights.names()) {
    if ((name != "a" && name != "b") || weights.read(name).bytes() != 2) {
      std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    if (size > 0 && data[0] == '{') {
      read_index(data, size);
    } else {
      read_file(data, size);
    }
  } catch (const lithe::FileError&) {
  }
  return 0;
}
