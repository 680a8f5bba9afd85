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
  // fsync, close, rename over `path`, fsync of the folder. When the last of these fails, the new
  // file is in place but may not outlive a power cut; in all others the old file is untouched.
  void commit();

 private:
  [[noreturn]] void fail(std::string_view action) const;

  std::filesystem::path path_;
  std::string temporary_;  // empty once it has become `path_`
  int fd_ = -1;
};

// Replaces `path` by `bytes`. Throws FileError as AtomicFile does.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// The whole file. Throws FileError with the system's reason.
std::string read_whole_file(const std::filesystem::path& path);

// fsync of a folder, so that what was created or renamed in it reaches the disk. Throws FileError;
// file systems that cannot sync folders are accepted.
void sync_folder(const std::filesystem::path& folder);

// Makes a folder and those above it that are missing, each synced into the one above. Throws
// FileError.
void make_folders(const std::filesystem::path& folder);

// rename(2): replaces a file or an empty folder at `to`. Durable after sync_folder. Throws
// FileError.
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);

// What may help against an error code of the system: "free disk space or ...".
std::string_view advice_for(int code);

}  // namespace lithe
