// BERT's text cleaning and its split into words, with the place in the text that each byte is of.
// The order of steps and the places are those of the `tokenizers` library (BertNormalizer,
// BertPreTokenizer).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace lithe {

struct BertNormalizer {
  bool clean_text = true;             // drop control characters, any white space becomes a space
  bool handle_chinese_chars = true;   // each CJK ideograph is a word
  std::optional<bool> strip_accents;  // NFD without nonspacing marks; unset: as lowercase
  bool lowercase = true;
  bool operator==(const BertNormalizer&) const = default;
};

struct NormalizedText {
  std::string text;             // UTF-8
  std::vector<TextSpan> spans;  // one a byte of `text`: the part of the given text it came from

  // What bytes [begin, end) came from; begin < end.
  TextSpan span(size_t begin, size_t end) const { return {spans[begin].begin, spans[end - 1].end}; }
};

// Replaces what is in `out`. `shift` is added to all places: `text` is a part of a longer one.
void normalize(std::string_view text, int32_t shift, const BertNormalizer& options,
               NormalizedText& out);

// The next word of text[at, end): a punctuation character, or what lies between white space and
// punctuation. {end, end} when there is none.
struct WordRange {
  size_t begin = 0;
  size_t end = 0;
};
WordRange next_word(std::string_view text, size_t at, size_t end);

}  // namespace lithe
