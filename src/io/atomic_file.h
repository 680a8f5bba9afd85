// A file that appears whole or not at all: written under a temporary name in the same folder,
// synced, renamed. A crash leaves the old file in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace lithe {

class AtomicFile {
 public:
  // Creates "NAME.tmp-PID-N" beside `path`; throws FileError when the folder cannot be written.
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();  // without commit() the temporary file is removed

  // Writes all of `data` at `offset`; throws FileError (disk full, ...).
  void write_at(int64_t offset, std::span<const std::byte> data);
  // fsync, rename over `path`, fsync of the folder.
  void commit();

 private:
  void fail(const char* action) const;

  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
};

}  // namespace lithe
