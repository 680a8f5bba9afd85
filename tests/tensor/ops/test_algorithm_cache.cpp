#include "tensor/ops/algorithm_cache.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>

#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "lithe-cache-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code none;
    fs::remove_all(path_, none);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// Sets a variable of the environment, or removes it, and puts back what was there.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) {
      old_ = old;
    }
    set(value);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() { set(old_ ? old_->c_str() : nullptr); }

 private:
  void set(const char* value) { value == nullptr ? ::unsetenv(name_) : ::setenv(name_, value, 1); }
  const char* name_;
  std::optional<std::string> old_;
};

TEST_CASE("A choice is found by the next process") {
  const Folder folder;
  const fs::path file = folder.path() / "deep" / "choices.json";
  {
    AlgorithmCache cache(file);
    CHECK(cache.find("a") == nullptr);
    CHECK(cache.can_keep());
    CHECK(cache.keep("a", "first") == "first");
    CHECK(cache.keep("b", "second") == "second");
  }
  const AlgorithmCache later(file);
  REQUIRE(later.find("a") != nullptr);
  CHECK(*later.find("a") == "first");
  REQUIRE(later.find("b") != nullptr);
  CHECK(*later.find("b") == "second");
}

TEST_CASE("Two processes agree on the choice that was first, and lose none") {
  const Folder folder;
  const fs::path file = folder.path() / "choices.json";
  AlgorithmCache one(file);
  AlgorithmCache two(file);
  CHECK(one.keep("shared", "of one") == "of one");
  CHECK(one.keep("alone", "of one") == "of one");
  CHECK(two.keep("shared", "of two") == "of one");
  CHECK(two.keep("other", "of two") == "of two");
  CHECK(*two.find("alone") == "of one");
  const AlgorithmCache later(file);
  CHECK(*later.find("alone") == "of one");
  CHECK(*later.find("other") == "of two");
}

TEST_CASE("A choice that is none of the library's is replaced") {
  const Folder folder;
  const fs::path file = folder.path() / "choices.json";
  CHECK(AlgorithmCache(file).keep("a", "stale") == "stale");
  AlgorithmCache cache(file);
  CHECK(cache.keep("a", "fresh", *cache.find("a")) == "fresh");
  CHECK(*AlgorithmCache(file).find("a") == "fresh");
}

TEST_CASE("What is wrong in the file is passed over, and the file is written anew") {
  const Folder folder;
  const fs::path file = folder.path() / "choices.json";
  const std::string deep(100'000, '[');
  const std::string long_name(1000, 'x');
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("\xff\xfe"), deep,
        std::string(R"({"format": 2, "choices": {"a": "kept"}})"),
        std::string(R"({"choices": {"a": "kept"}})"), std::string(R"({"format": 1, "choices": 3})"),
        std::string(R"({"format": 1, "choices": {"a": 5}})"),
        std::string(R"({"format": 1, "choices": {"a": ["kept"]}})"),
        R"({"format": 1, "choices": {"a": ")" + long_name + "\"}}",
        R"({"format": 1, "choices": {")" + long_name + "\": \"kept\"}}",
        std::string((8 << 20) + 1, ' ')}) {
    CAPTURE(text.substr(0, 60));
    write_file_atomically(file, text);
    AlgorithmCache cache(file);
    CHECK(cache.find("a") == nullptr);
    CHECK(cache.find(long_name) == nullptr);
    CHECK(cache.keep("a", "new") == "new");
    CHECK(*AlgorithmCache(file).find("a") == "new");
  }
  write_file_atomically(file, R"({"format": 1, "choices": {"bad": 1, "good": "kept"}})");
  CHECK(*AlgorithmCache(file).find("good") == "kept");
}

TEST_CASE("A choice that cannot be kept is not pretended") {
  AlgorithmCache none{fs::path()};
  CHECK_FALSE(none.can_keep());
  CHECK(none.keep("a", "first") == std::nullopt);
  CHECK(none.find("a") == nullptr);

  const Folder folder;
  write_file_atomically(folder.path() / "file", "not a folder");
  AlgorithmCache blocked(folder.path() / "file" / "choices.json");
  CHECK(blocked.can_keep());
  CHECK(blocked.keep("a", "first") == std::nullopt);
  CHECK(blocked.find("a") == nullptr);
  CHECK_FALSE(blocked.can_keep());

  AlgorithmCache cache(folder.path() / "choices.json");
  CHECK(cache.keep(std::string(AlgorithmCache::kMostProblemBytes + 1, 'x'), "first") ==
        std::nullopt);
}

TEST_CASE("The folder is where the environment says") {
  const Variable home("HOME", "/home/someone");
  const Variable xdg("XDG_CACHE_HOME", nullptr);
  const Variable own("LITHE_CACHE_DIR", nullptr);
  CHECK(cache_folder() == "/home/someone/.cache/lithe");
  {
    const Variable set("XDG_CACHE_HOME", "/var/caches");
    CHECK(cache_folder() == "/var/caches/lithe");
    const Variable mine("LITHE_CACHE_DIR", "/elsewhere");
    CHECK(cache_folder() == "/elsewhere");
    const Variable off("LITHE_CACHE_DIR", "off");
    CHECK(cache_folder().empty());
    const Variable empty("LITHE_CACHE_DIR", "");
    CHECK(cache_folder() == "/var/caches/lithe");
  }
  const Variable relative("XDG_CACHE_HOME", "caches");
  CHECK(cache_folder() == "/home/someone/.cache/lithe");
  const Variable homeless("HOME", nullptr);
  CHECK(cache_folder().empty());
}

}  // namespace
}  // namespace lithe
