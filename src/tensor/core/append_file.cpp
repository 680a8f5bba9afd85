#include "tensor/core/append_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

[[noreturn]] void fail(std::string_view action, const std::filesystem::path& path, int code,
                       std::string_view left = "") {
  throw FileError("file", "cannot {} {}: {}{}; {}", action, path.string(), std::strerror(code),
                  left, advice_for(code));
}

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

}  // namespace

AppendFile::AppendFile(std::filesystem::path path, bool fresh) : path_(std::move(path)) {
  const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (fresh ? O_EXCL : 0);
  fd_ = ::open(path_.c_str(), flags, 0666);
  if (fd_ < 0) {
    fail("open", path_, errno);
  }
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  if (this != &other) {
    close();
    path_ = std::move(other.path_);
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

AppendFile::~AppendFile() { close(); }

void AppendFile::append(std::string_view bytes) {
  const off_t before = ::lseek(fd_, 0, SEEK_END);
  if (!write_all(fd_, bytes)) {
    const int code = errno;
    // A half record would join the next one.
    const bool cut = before >= 0 && ::ftruncate(fd_, before) == 0;
    fail("write to", path_, code, cut ? "" : " (its last record is incomplete)");
  }
}

void AppendFile::sync() {
  if (fd_ >= 0 && ::fsync(fd_) != 0 && errno != EINVAL) {
    fail("sync", path_, errno);
  }
}

void AppendFile::empty() {
  if (::ftruncate(fd_, 0) != 0) {
    fail("empty", path_, errno);
  }
}

bool AppendFile::lock() { return ::flock(fd_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK; }

void AppendFile::close() {
  if (fd_ >= 0) {
    ::close(std::exchange(fd_, -1));
  }
}

}  // namespace lithe
