#include "tensor/ops/algorithm_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kFormat = 1;
constexpr uintmax_t kMostFileBytes = uintmax_t{8} << 20;  // of kMostChoices with room to spare

// An absolute folder in the environment, or nothing.
fs::path folder_in(const char* variable) {
  const char* value = std::getenv(variable);
  const fs::path path = value == nullptr ? "" : value;
  return path.is_absolute() ? path : fs::path();
}

std::map<std::string, std::string> read_choices(const fs::path& file) {
  std::map<std::string, std::string> out;
  std::error_code none;
  if (!fs::is_regular_file(file, none) || fs::file_size(file, none) > kMostFileBytes) {
    return out;
  }
  json text;
  try {
    text = json::parse(read_whole_file(file), nullptr, false);
  } catch (const FileError&) {
    return out;
  }
  if (!text.is_object() || text.value("format", json()) != kFormat) {
    return out;
  }
  const json choices = text.value("choices", json());
  if (!choices.is_object() || choices.size() > AlgorithmCache::kMostChoices) {
    return out;
  }
  for (const auto& [problem, choice] : choices.items()) {
    const auto* name = choice.get_ptr<const std::string*>();
    if (name != nullptr && problem.size() <= AlgorithmCache::kMostProblemBytes &&
        name->size() <= AlgorithmCache::kMostChoiceBytes) {
      out.emplace(problem, *name);
    }
  }
  return out;
}

// Held while the file is read, changed and replaced, so that no process loses another's choice.
class FileLock {
 public:
  explicit FileLock(const fs::path& file)
      : fd_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644)) {
    if (fd_ < 0 || ::flock(fd_, LOCK_EX) != 0) {
      const int code = errno;
      close();
      throw FileError(file.string(), "locking failed: {}", std::strerror(code));
    }
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock() { close(); }

 private:
  void close() {
    if (fd_ >= 0) {
      ::close(fd_);
      fd_ = -1;
    }
  }
  int fd_;
};

}  // namespace

fs::path cache_folder() {
  if (const char* value = std::getenv("LITHE_CACHE_DIR"); value != nullptr && *value != '\0') {
    return std::string_view(value) == "off" ? fs::path() : fs::path(value);
  }
  if (const fs::path folder = folder_in("XDG_CACHE_HOME"); !folder.empty()) {
    return folder / "lithe";
  }
  const fs::path home = folder_in("HOME");
  return home.empty() ? home : home / ".cache" / "lithe";
}

AlgorithmCache::AlgorithmCache(fs::path file) : file_(std::move(file)) {
  if (!file_.empty()) {
    choices_ = read_choices(file_);
  }
}

const std::string* AlgorithmCache::find(const std::string& problem) const {
  const auto at = choices_.find(problem);
  return at == choices_.end() ? nullptr : &at->second;
}

std::optional<std::string> AlgorithmCache::keep(const std::string& problem,
                                                const std::string& choice,
                                                const std::string& instead_of) {
  if (!can_keep() || problem.size() > kMostProblemBytes || choice.size() > kMostChoiceBytes) {
    return std::nullopt;
  }
  try {
    make_folders(file_.parent_path());
    const FileLock lock(file_.string() + ".lock");
    for (const auto& [other, kept] : read_choices(file_)) {
      choices_.insert_or_assign(other, kept);
    }
    const std::string* kept = find(problem);
    if (kept == nullptr || *kept == instead_of) {
      choices_.insert_or_assign(problem, choice);
      write_file_atomically(file_, json{{"format", kFormat}, {"choices", choices_}}.dump(1) + "\n");
    }
    return *find(problem);
  } catch (const FileError&) {
    choices_.erase(problem);
    file_.clear();
    return std::nullopt;
  }
}

}  // namespace lithe
