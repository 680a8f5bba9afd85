#include "io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tensor/core/error.h"

namespace lithe {
namespace {

constexpr int kMaxAttempts = 1000;

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path) {
  for (int attempt = 0; attempt < kMaxAttempts && fd_ < 0; ++attempt) {
    temporary_ = fmt::format("{}.tmp-{}-{}", path.string(), ::getpid(), attempt);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno != EEXIST) {
      break;
    }
  }
  if (fd_ < 0) {
    fail("cannot be created");
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::fail(const char* action) const {
  throw FileError("file", "{}: {} ({}); check that the folder exists, is writable and has space",
                  temporary_, action, std::strerror(errno));
}

void AtomicFile::write_at(int64_t offset, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t written = ::pwrite(fd_, data.data(), data.size(), offset);
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      fail("cannot be written");
    }
    offset += written;
    data = data.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) {
    fail("cannot be synced");
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail("cannot be renamed");
  }
  ::close(fd_);
  fd_ = -1;
  // The rename itself must reach the disk; a file system that cannot sync folders is accepted.
  const auto folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
  const int folder_fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd >= 0) {
    ::fsync(folder_fd);
    ::close(folder_fd);
  }
}

}  // namespace lithe
