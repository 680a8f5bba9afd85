#include "recipe/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "recipe/convert.h"
#include "recipe/expand.h"
#include "recipe/nearest.h"
#include "tensor/core/error.h"

namespace lithe::recipe {
namespace {

namespace fs = std::filesystem;

std::string folder_of(const fs::path& path) {
  const fs::path folder = path.parent_path();
  return folder.empty() ? "." : folder.string();
}

[[noreturn]] void refuse_missing(const fs::path& path, const std::string& asked_by) {
  std::error_code error;
  std::vector<std::string> names;
  if (!fs::is_directory(folder_of(path), error)) {
    throw FileError("recipe", "{}no file '{}': there is no folder '{}'", asked_by, path.string(),
                    folder_of(path));
  }
  const fs::directory_iterator end;
  for (fs::directory_iterator at(folder_of(path), error); !error && at != end;
       at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  std::sort(names.begin(), names.end());  // the same answer whatever order the folder is in
  const std::string near = nearest_name(path.filename().string(), names);
  throw FileError("recipe", "{}no file '{}'; {}", asked_by, path.string(),
                  near.empty()
                      ? "give the path of a recipe (.yaml)"
                      : fmt::format("did you mean '{}'?", (path.parent_path() / near).string()));
}

// `asked_by` is "" or "file:line: base: ".
std::string read_file(const fs::path& path, const std::string& asked_by) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    refuse_missing(path, asked_by);
  }
  if (status.type() != fs::file_type::regular) {
    throw FileError("recipe", "{}'{}' is not a regular file that can be read{}", asked_by,
                    path.string(), error ? ": " + error.message() : "");
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text(kLargestRecipe + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!stream.is_open() || stream.bad()) {
    throw FileError("recipe", "{}'{}' cannot be read; look at its permissions", asked_by,
                    path.string());
  }
  text.resize(static_cast<size_t>(stream.gcount()));
  if (text.size() > kLargestRecipe) {
    throw FileError("recipe", "{}'{}' is larger than a recipe's {} bytes", asked_by, path.string(),
                    kLargestRecipe);
  }
  return text;
}

}  // namespace

const Node* base_of(const Node& root) {
  if (root.kind == Node::Kind::map) {
    for (const Node& item : root.items) {
      if (item.key == "base") {
        return &item;
      }
    }
  }
  return nullptr;
}

std::vector<RecipeFile> read_with_bases(const std::string& path) {
  std::vector<RecipeFile> files;
  std::vector<fs::path> seen;
  fs::path next = path;
  std::string asked_by;
  while (true) {
    RecipeFile file{{next.string()}, {}};
    file.root = read_document(read_file(next, asked_by), file.source);
    std::error_code error;
    seen.push_back(fs::weakly_canonical(next, error));
    files.push_back(std::move(file));
    const RecipeFile& latest = files.back();
    const Node* base = base_of(latest.root);
    if (!base) {
      break;
    }
    const std::string where = latest.source.at(base->key_line);
    if (base->kind != Node::Kind::scalar || base->text.empty()) {
      throw UsageError("recipe", "{}: key 'base': found {}, wanted the path of a recipe", where,
                       describe(*base));
    }
    next = (next.parent_path() / expand(base->text, where)).lexically_normal();
    const fs::path canonical = fs::weakly_canonical(next, error);
    if (std::find(seen.begin(), seen.end(), canonical) != seen.end()) {
      throw UsageError("recipe", "{}: base '{}' closes a cycle", where, next.string());
    }
    if (files.size() > kDeepestBase) {
      throw UsageError("recipe", "{}: more than {} recipes build on each other", where,
                       kDeepestBase);
    }
    asked_by = where + ": base: ";
  }
  std::reverse(files.begin(), files.end());
  return files;
}

}  // namespace lithe::recipe
