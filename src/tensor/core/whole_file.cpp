#include "tensor/core/whole_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "tensor/core/error.h"

namespace lithe {
namespace {

constexpr int kMaxAttempts = 1000;

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

// Closes on every way out.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

std::string_view advice_for(int code) {
  switch (code) {
    case ENOSPC:
    case EDQUOT:
      return "free disk space or choose another folder with --out DIR";
    case EFBIG:
      return "raise the file size limit (ulimit -f)";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a folder that you may write with --out DIR";
    case ENOENT:
    case ENOTDIR:
      return "check that the folder exists";
    default:
      return "check the disk and the path";
  }
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path) {
  // A killed process may have left a temporary file of the same number: take the next name.
  for (int attempt = 0; attempt < kMaxAttempts && fd_ < 0; ++attempt) {
    temporary_ = (folder_of(path) /
                  fmt::format(".{}.{}-{}.tmp", path.filename().string(), ::getpid(), attempt))
                     .string();
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno != EEXIST) {
      break;
    }
  }
  if (fd_ < 0) {
    fail("create");
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::fail(std::string_view action) const {
  const int code = errno;
  throw FileError("file", "cannot {} {}: {}; {}", action, path_.string(), std::strerror(code),
                  advice_for(code));
}

void AtomicFile::write_at(int64_t offset, std::span<const std::byte> data) {
  const size_t bytes = data.size();
  while (!data.empty()) {
    const ssize_t written = ::pwrite(fd_, data.data(), data.size(), offset);
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      const int code = errno;  // formatting may change it
      const std::string action = fmt::format("write {} bytes to", bytes);
      errno = code;
      fail(action);
    }
    offset += written;
    data = data.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0 && errno != EINVAL) {
    fail("sync");
  }
  const int fd = std::exchange(fd_, -1);
  // Some file systems report a full disk only here. Linux has closed it even where it says EINTR.
  if (::close(fd) != 0 && errno != EINTR) {
    fail("close");
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail("rename a temporary file to");
  }
  temporary_.clear();
  sync_folder(folder_of(path_));
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write_at(0, std::as_bytes(std::span(bytes)));
  file.commit();
}

void sync_folder(const std::filesystem::path& folder) {
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const bool done = fd.get() >= 0 && ::fsync(fd.get()) == 0;
  // EINVAL, ENOTSUP: no such operation here; EACCES: a folder that may be entered but not listed.
  if (!done && errno != EINVAL && errno != ENOTSUP && errno != EACCES) {
    const int code = errno;
    throw FileError("file", "cannot sync the folder {}: {}; {}", folder.string(),
                    std::strerror(code), advice_for(code));
  }
}

void make_folders(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (folder.empty() || std::filesystem::is_directory(folder, ignored)) {
    return;
  }
  const std::filesystem::path above = folder_of(folder);
  make_folders(above);
  if (::mkdir(folder.c_str(), 0777) != 0) {
    const int code = errno;
    if (code == EEXIST && std::filesystem::is_directory(folder, ignored)) {
      return;  // "a/", or another process was faster
    }
    throw FileError("file", "cannot make the folder {}: {}; {}", folder.string(),
                    std::strerror(code), advice_for(code));
  }
  sync_folder(above);
}

void rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const int code = errno;
    throw FileError("file", "cannot rename {} to {}: {}; {}", from.string(), to.string(),
                    std::strerror(code), advice_for(code));
  }
}

std::string read_whole_file(const std::filesystem::path& path) {
  const auto refuse = [&]() {
    throw FileError("file", "cannot read {}: {}; check the path", path.string(),
                    std::strerror(errno));
  };
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info = {};
  if (fd.get() < 0 || ::fstat(fd.get(), &info) != 0) {
    refuse();
  }
  std::string bytes;
  bytes.reserve(info.st_size > 0 ? static_cast<size_t>(info.st_size) : 0);
  std::array<char, 1 << 16> block{};
  for (;;) {
    const ssize_t n = ::read(fd.get(), block.data(), block.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      refuse();
    }
    if (n == 0) {
      return bytes;
    }
    bytes.append(block.data(), static_cast<size_t>(n));
  }
}

}  // namespace lithe
