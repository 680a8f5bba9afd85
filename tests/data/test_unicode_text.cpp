#include "data/unicode_text.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <vector>

#include "data/bert_normalizer.h"
#include "tokenizer_golden.h"

namespace lithe {
namespace {

constexpr char32_t kLimit = 0x110000;

bool is_surrogate(char32_t point) { return point >= 0xd800 && point < 0xe000; }

std::string utf8(char32_t point) {
  std::string text;
  append_utf8(text, point);
  return text;
}

std::string name(char32_t point) { return fmt::format("U+{:04X}", static_cast<uint32_t>(point)); }

// The library's class of each code point, as write_unicode() packs it.
unsigned class_of(char32_t point, NormalizedText& scratch) {
  static const BertNormalizer clean{true, false, false, false};
  static const BertNormalizer chinese{false, true, false, false};
  const std::string text = utf8(point);
  normalize(text, 0, clean, scratch);
  unsigned bits = (scratch.text.empty() ? 1U : 0U) | (scratch.text == " " ? 2U : 0U);
  normalize(text, 0, chinese, scratch);
  bits |= scratch.text != text ? 4U : 0U;
  bits |= is_white_space(point) ? 16U : is_punctuation(point) ? 8U : 0U;
  if (canonical_decomposition(point).points[0] == point) {
    bits |= (is_nonspacing_mark(point) ? 32U : 0U) | (combining_class(point) != 0 ? 64U : 0U);
  }
  return bits;
}

std::vector<char32_t> hangul(char32_t point) {
  const char32_t index = point - 0xac00;
  std::vector<char32_t> parts{0x1100 + index / 588, 0x1161 + index % 588 / 28};
  if (index % 28 != 0) {
    parts.push_back(0x11a7 + index % 28);
  }
  return parts;
}

template <typename Map>
int64_t count_mapping_differences(GoldenReader& golden, Map map, bool decomposition) {
  std::vector<std::vector<char32_t>> expected(kLimit);
  char32_t point = 0;
  for (int64_t left = golden.number(); left > 0; --left) {
    point += static_cast<char32_t>(golden.number());
    for (int64_t parts = golden.number(); parts > 0; --parts) {
      expected[point].push_back(
          static_cast<char32_t>(static_cast<int64_t>(point) + golden.signed_number()));
    }
  }
  int64_t differences = 0;
  for (point = 0; point < kLimit; ++point) {
    if (is_surrogate(point)) {
      continue;
    }
    std::vector<char32_t>& want = expected[point];
    if (want.empty()) {
      want = decomposition && point >= 0xac00 && point <= 0xd7a3 ? hangul(point)
                                                                 : std::vector<char32_t>{point};
    }
    const Mapping got = map(point);
    if (std::vector<char32_t>(got.points.begin(), got.points.begin() + got.count) != want) {
      ++differences;
      MESSAGE(name(point));
    }
  }
  return differences;
}

TEST_CASE("every code point is classified and mapped as the library does") {
  GoldenReader golden(LITHE_SOURCE_DIR "/tests/golden/tokenizer_unicode.bin");
  std::vector<std::pair<char32_t, unsigned>> runs;
  char32_t begin = 0;
  for (int64_t left = golden.number(); left > 0; --left) {
    begin += static_cast<char32_t>(golden.number());
    runs.emplace_back(begin, static_cast<unsigned>(golden.number()));
  }
  REQUIRE(runs.size() > 300);
  runs.emplace_back(kLimit, 0);
  NormalizedText scratch;
  int64_t differences = 0;
  for (size_t run = 0; run + 1 < runs.size(); ++run) {
    for (char32_t point = runs[run].first; point < runs[run + 1].first; ++point) {
      if (!is_surrogate(point) && class_of(point, scratch) != runs[run].second) {
        ++differences;
        MESSAGE(name(point) << " is of class " << class_of(point, scratch) << ", not "
                            << runs[run].second);
      }
    }
  }
  CHECK(differences == 0);
  CHECK(count_mapping_differences(golden, canonical_decomposition, true) == 0);
  CHECK(count_mapping_differences(golden, lower_case, false) == 0);
  CHECK(golden.at_end());
}

TEST_CASE("UTF-8 is read and written, and ill-formed parts are one U+FFFD each") {
  for (const char32_t point : {U'a', U'\x7f', U'\x80', U'\u07ff', U'\u0800', U'\ud7ff', U'\ue000',
                               U'\uffff', U'\U00010000', U'\U0010ffff'}) {
    const std::string text = utf8(point);
    CHECK(static_cast<int>(text.size()) == utf8_size(point));
    const CodePoint read = decode_utf8(text, 0);
    CHECK(read.value == point);
    CHECK(read.bytes == utf8_size(point));
    CHECK_FALSE(read.ill_formed);
    CHECK(decode_utf8_before("x" + text, text.size() + 1).value == point);
    CHECK(find_ill_formed(text) == std::string_view::npos);
    for (size_t cut = 1; cut < text.size(); ++cut) {
      CHECK(decode_utf8(text.substr(0, cut), 0).ill_formed);
      CHECK(find_ill_formed("ab" + text.substr(0, cut)) == 2);
    }
  }
  const auto parts = [](std::string_view text) {
    std::vector<int> bytes;
    for (size_t at = 0; at < text.size(); at += static_cast<size_t>(bytes.back())) {
      const CodePoint point = decode_utf8(text, at);
      CHECK(point.ill_formed == (point.value == kReplacementCharacter));
      bytes.push_back(point.bytes);
    }
    return bytes;
  };
  CHECK(parts("\x80") == std::vector{1});
  CHECK(parts("\xc0\xaf") == std::vector{1, 1});                // overlong
  CHECK(parts("\xe0\x9f\x80") == std::vector{1, 1, 1});         // overlong
  CHECK(parts("\xed\xa0\x80") == std::vector{1, 1, 1});         // surrogate
  CHECK(parts("\xf4\x90\x80\x80") == std::vector{1, 1, 1, 1});  // above U+10FFFF
  CHECK(parts("\xe2\x82") == std::vector{2});
  CHECK(parts("\xf0\x9f\x98x") == std::vector{3, 1});
  CHECK(parts("\xc3\xc3\xa9") == std::vector{1, 2});
}

TEST_CASE("names in messages are short and act on no terminal") {
  CHECK(in_quotes("[SEP]") == "'[SEP]'");
  CHECK(in_quotes("a\x1b[31m\n\u202e") == "'a\\u001b[31m\\u000a\\u202e'");
  CHECK(in_quotes("\xff") == "'\uFFFD'");
  CHECK(in_quotes(std::string(1000, 'x')) == "'" + std::string(60, 'x') + "...'");
}

}  // namespace
}  // namespace lithe
