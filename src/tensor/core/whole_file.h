// Files as wholes: they appear complete or not at all (written under a temporary name in the same
// folder, synced, renamed; a crash leaves the old file in place), and are read at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace lithe {

class AtomicFile {
 public:
  // Creates ".NAME.PID-N.tmp" beside `path`; throws FileError when the folder cannot be written.
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();  // without commit() the temporary file is removed

  // Writes all of `data` at `offset`; throws FileError with the system's reason (disk full, ...).
  void write_at(int64_t offset, std::span<const std::byte> data);
  // fsync, rename over `path`, fsync of the folder.
  void commit();

 private:
  [[noreturn]] void fail(std::string_view action) const;

  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
};

// Replaces `path` by `bytes`. Throws FileError; the old file is then untouched.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// The whole file. Throws FileError with the system's reason.
std::string read_whole_file(const std::filesystem::path& path);

// Writes all of `bytes` to an open descriptor, going on after signals; false leaves errno set.
bool write_all(int descriptor, std::string_view bytes);

// fsync of a folder, so that a rename in it reaches the disk; file systems that refuse are
// accepted.
void sync_folder(const std::filesystem::path& folder);

}  // namespace lithe
