// A file that grows by whole records: what could not be written whole is cut off again.
#pragma once

#include <filesystem>
#include <string_view>

namespace lithe {

class AppendFile {
 public:
  AppendFile() = default;  // closed
  // Opens or creates `path`; throws FileError. With `fresh` the file must not exist yet.
  explicit AppendFile(std::filesystem::path path, bool fresh = false);
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;
  ~AppendFile();

  bool is_open() const { return fd_ >= 0; }
  const std::filesystem::path& path() const { return path_; }

  // Hands all of `bytes` to the system before it returns. Throws FileError with the system's
  // reason; the file then ends where it did before, or the message says that it does not.
  void append(std::string_view bytes);
  void sync();   // fsync; throws FileError
  void empty();  // throws FileError

  // Takes the file's lock, which ends with the descriptor; false: another process has it. File
  // systems without locks answer true.
  bool lock();
  void close();

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace lithe
