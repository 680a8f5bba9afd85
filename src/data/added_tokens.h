// Tokens that are found in a text before it is split into words, as "[SEP]" is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_table.h"

namespace lithe {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // not beside a letter or digit
  bool lstrip = false;       // takes white space on its left with it
  bool rstrip = false;
  bool normalized = false;  // looked for in the normalized text, else in the text as given
};

struct AddedTokenMatch {
  size_t begin = 0;
  size_t end = 0;
  int32_t id = -1;
};

class AddedTokenMatcher {
 public:
  // False, changing nothing, when a token of this content is there already. Content is not empty.
  bool add(const AddedToken& token);
  bool empty() const { return tokens_.empty(); }
  // All matches in text order, the longest where several begin; disjoint.
  void find(std::string_view text, std::vector<AddedTokenMatch>& matches) const;

 private:
  // Index of the longest token that text[at, ...) begins with, or -1.
  int32_t longest_at(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;
  TokenTable contents_;                               // content to index
  std::array<std::vector<uint32_t>, 256> lengths_{};  // of contents, by first byte, descending
};

}  // namespace lithe
