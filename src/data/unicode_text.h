// Code points as the `tokenizers` library classifies and maps them. Its tables are of several ages
// (categories of Unicode 8, decompositions of Unicode 9, lower case of Unicode 17), so utf8proc's
// newer answers are corrected where the two differ; tests/data/test_unicode_text.cpp compares every
// code point.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lithe {

inline constexpr char32_t kReplacementCharacter = 0xfffd;

struct CodePoint {
  char32_t value = 0;
  int32_t bytes = 1;        // that it takes in the text
  bool ill_formed = false;  // then value is U+FFFD and bytes the maximal ill-formed part
};

// Reads the code point at `at` < text.size().
CodePoint decode_utf8(std::string_view text, size_t at);
// Same, backwards: the one that ends before `end` > 0.
CodePoint decode_utf8_before(std::string_view text, size_t end);
void append_utf8(std::string& text, char32_t point);
// Bytes that append_utf8 writes.
int utf8_size(char32_t point);
// Position of the first byte that is not UTF-8, or npos.
size_t find_ill_formed(std::string_view text);

bool is_white_space(char32_t point);      // property White_Space
bool is_other(char32_t point);            // categories Cc, Cf, Co
bool is_punctuation(char32_t point);      // categories P*; of ASCII symbols too, as BERT has it
bool is_nonspacing_mark(char32_t point);  // category Mn
// What a regular expression calls \w: alphabetic, marks, decimal digits, connectors, joiners.
bool is_word_character(char32_t point);

int combining_class(char32_t point);

// One to four code points.
struct Mapping {
  std::array<char32_t, 4> points{};
  int count = 0;
};
Mapping canonical_decomposition(char32_t point);  // full, of this code point alone
Mapping lower_case(char32_t point);               // without context

// A name out of a hostile file, fit for a message: short, printable, in single quotes.
std::string in_quotes(std::string_view name);

}  // namespace lithe
