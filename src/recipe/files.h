// Recipe files and the chain of `base:` recipes behind one.
#pragma once

#include <string>
#include <vector>

#include "recipe/document.h"

namespace lithe::recipe {

inline constexpr size_t kDeepestBase = 8;

struct RecipeFile {
  Source source;
  Node root;
};

// The `base` entry of a recipe's top-level mapping, or nullptr.
const Node* base_of(const Node& root);

// The recipe at `path` and all it builds on, the deepest base first. FileError for a file that is
// missing (naming the nearest in its folder), unreadable, not a regular file or too large;
// UsageError for a cycle, more than kDeepestBase bases and what read_document() refuses.
std::vector<RecipeFile> read_with_bases(const std::string& path);

}  // namespace lithe::recipe
