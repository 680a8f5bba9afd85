#include "data/added_tokens.h"

#include <algorithm>
#include <functional>

#include "data/unicode_text.h"

namespace lithe {
namespace {

size_t skip_white_space(std::string_view text, size_t at) {
  while (at < text.size()) {
    const CodePoint point = decode_utf8(text, at);
    if (!is_white_space(point.value)) {
      break;
    }
    at += static_cast<size_t>(point.bytes);
  }
  return at;
}

size_t skip_white_space_before(std::string_view text, size_t end) {
  while (end > 0) {
    const CodePoint point = decode_utf8_before(text, end);
    if (!is_white_space(point.value)) {
      break;
    }
    end -= static_cast<size_t>(point.bytes);
  }
  return end;
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !is_word_character(decode_utf8_before(text, begin).value)) &&
         (end == text.size() || !is_word_character(decode_utf8(text, end).value));
}

}  // namespace

bool AddedTokenMatcher::add(const AddedToken& token) {
  if (!contents_.insert(token.content, static_cast<int32_t>(tokens_.size()))) {
    return false;
  }
  tokens_.push_back(token);
  std::vector<uint32_t>& lengths = lengths_[static_cast<unsigned char>(token.content[0])];
  const auto length = static_cast<uint32_t>(token.content.size());
  const auto place = std::lower_bound(lengths.begin(), lengths.end(), length, std::greater<>());
  if (place == lengths.end() || *place != length) {
    lengths.insert(place, length);
  }
  return true;
}

int32_t AddedTokenMatcher::longest_at(std::string_view text, size_t at) const {
  for (const uint32_t length : lengths_[static_cast<unsigned char>(text[at])]) {
    if (length <= text.size() - at) {
      if (const int32_t index = contents_.find(text.substr(at, length)); index >= 0) {
        return index;
      }
    }
  }
  return -1;
}

void AddedTokenMatcher::find(std::string_view text, std::vector<AddedTokenMatch>& matches) const {
  matches.clear();
  if (tokens_.empty()) {
    return;
  }
  size_t taken = 0;  // end of the last match, with the white space it took
  for (size_t at = 0; at < text.size();) {
    const int32_t index = longest_at(text, at);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    AddedTokenMatch match{at, at + token.content.size(), token.id};
    at = match.end;
    if (token.single_word && !is_single_word(text, match.begin, match.end)) {
      continue;
    }
    if (token.lstrip) {
      match.begin = std::max(taken, skip_white_space_before(text, match.begin));
    }
    if (token.rstrip) {
      match.end = skip_white_space(text, match.end);
    }
    // A token of white space that the one before took already.
    match.begin = std::max(match.begin, taken);
    match.end = std::max(match.end, match.begin);
    if (match.end == match.begin) {
      continue;
    }
    taken = match.end;
    matches.push_back(match);
  }
}

}  // namespace lithe
