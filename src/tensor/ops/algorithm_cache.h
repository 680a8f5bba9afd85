// Which of a library's algorithms measured fastest, by problem, kept on disk: every later run takes
// the same ones, so that it gives the same bits and starts at once.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace lithe {

// Where such files belong: LITHE_CACHE_DIR ("off": nowhere), else $XDG_CACHE_HOME/lithe, else
// $HOME/.cache/lithe. Empty: nowhere.
std::filesystem::path cache_folder();

// One JSON file: {"format": 1, "choices": {problem: choice, ...}}. Whatever in it is not as written
// here is passed over, and what is passed over is measured anew. Not for several threads at once.
class AlgorithmCache {
 public:
  static constexpr size_t kMostChoices = 16384;
  static constexpr size_t kMostProblemBytes = 256;
  static constexpr size_t kMostChoiceBytes = 128;

  // Reads `file`, which need not exist; an empty path keeps nothing.
  explicit AlgorithmCache(std::filesystem::path file);

  // The choice for `problem`, or nullptr.
  const std::string* find(const std::string& problem) const;
  // Whether a new choice would be kept, as far as it is known without writing.
  bool can_keep() const { return !file_.empty() && choices_.size() < kMostChoices; }
  // Writes the file anew with `choice` and whatever other processes have added meanwhile. Returns
  // what it now says of `problem`: the choice of another process, where that was first and is not
  // `instead_of`. Nothing when the file cannot be written; from then on it keeps nothing.
  std::optional<std::string> keep(const std::string& problem, const std::string& choice,
                                  const std::string& instead_of = {});

 private:
  std::filesystem::path file_;
  std::map<std::string, std::string> choices_;
};

}  // namespace lithe
