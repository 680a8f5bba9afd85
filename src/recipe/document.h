// YAML text as a plain tree, read from yaml-cpp's event stream. yaml-cpp's own node graph is not
// used: here hostile text is refused while it is read, before anything can grow or recurse.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lithe::recipe {

inline constexpr size_t kLargestRecipe = size_t{1} << 20;  // bytes
inline constexpr size_t kMostValues = 100000;
inline constexpr size_t kDeepestNesting = 32;

// Where a text comes from, for messages: "vit.yaml:3" or "command line: optimizer.lr=1".
struct Source {
  std::string name;
  bool command_line = false;
  std::string at(int line) const;
};

struct Node {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  int line = 1;
  std::string text = {};         // scalar
  bool quoted = false;           // scalar: quoted or block text is never a number or a boolean
  std::vector<Node> items = {};  // list, map
  std::string key = {};          // entry of a map
  int key_line = 1;
};

// The one document in `text`; a null node when it is empty. UsageError for bad syntax, duplicate
// keys, anchors, aliases, tags, several documents, control characters, text that is not UTF-8 and
// nesting or counts above the limits; FileError for text over kLargestRecipe.
Node read_document(const std::string& text, const Source& source);

bool is_utf8(std::string_view text);

}  // namespace lithe::recipe
