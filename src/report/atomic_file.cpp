#include "report/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tensor/core/error.h"

namespace lithe {
namespace {

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
  // Some file systems report a full disk only here.
  bool close() {
    const int fd = fd_;
    fd_ = -1;
    return ::close(fd) == 0;
  }

 private:
  int fd_;
};

std::string advice(int code) {
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

[[noreturn]] void fail(const char* action, const std::filesystem::path& path, size_t bytes,
                       int code) {
  throw FileError("write_file", "cannot {} {} ({} bytes): {}; {}", action, path.string(), bytes,
                  std::strerror(code), advice(code));
}

void sync_folder(const std::filesystem::path& folder) {
  // Best effort: some file systems refuse fsync on a folder, and the rename itself succeeded.
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() >= 0) {
    ::fsync(fd.get());
  }
}

}  // namespace

bool write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(descriptor, bytes.data(), std::min<size_t>(bytes.size(), 1u << 30));
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::string temporary;
  int code = EEXIST;
  int opened = -1;
  // A killed process may have left a temporary file of the same number: take the next name.
  for (int attempt = 0; opened < 0 && code == EEXIST && attempt < 1000; ++attempt) {
    temporary =
        (folder / fmt::format(".{}.{}-{}.tmp", path.filename().string(), ::getpid(), attempt))
            .string();
    opened = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    code = errno;
  }
  if (opened < 0) {
    fail("create a temporary file for", path, bytes.size(), code);
  }
  Descriptor fd(opened);
  const auto abandon = [&](const char* action) {
    const int reason = errno;
    ::unlink(temporary.c_str());
    fail(action, path, bytes.size(), reason);
  };
  if (!write_all(fd.get(), bytes)) {
    abandon("write");
  }
  if (::fsync(fd.get()) != 0 && errno != EINVAL) {
    abandon("sync");
  }
  if (!fd.close()) {
    abandon("close");
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    abandon("rename a temporary file to");
  }
  sync_folder(folder);
}

std::string read_whole_file(const std::filesystem::path& path) {
  const auto refuse = [&]() {
    throw FileError("read_file", "cannot read {}: {}; check the path", path.string(),
                    std::strerror(errno));
  };
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    refuse();
  }
  struct stat info = {};
  if (::fstat(fd.get(), &info) != 0) {
    refuse();
  }
  std::string bytes;
  bytes.reserve(info.st_size > 0 ? static_cast<size_t>(info.st_size) : 0);
  char block[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd.get(), block, sizeof block);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      refuse();
    }
    if (n == 0) {
      return bytes;
    }
    bytes.append(block, static_cast<size_t>(n));
  }
}

}  // namespace lithe
