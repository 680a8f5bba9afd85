#include "data/tokenizer.h"

#include <doctest/doctest.h>

#include "data/tokenizer_files.h"
#include "io/temp_folder.h"
#include "tensor/core/error.h"
#include "tokenizer_golden.h"

namespace lithe {
namespace {

constexpr const char* kVocab = LITHE_SOURCE_DIR "/tests/golden/tokenizer_vocab.txt";

std::unique_ptr<Tokenizer> small_tokenizer() {
  return parse_vocab("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\nhello\n,\nworld\n",
                     "v");
}

Tokens counted(int32_t count) {
  Tokens tokens;
  for (int32_t i = 0; i < count; ++i) {
    tokens.ids.push_back(i);
    tokens.spans.push_back({i, i + 1});
  }
  return tokens;
}

struct Golden {
  GoldenReader reader{LITHE_SOURCE_DIR "/tests/golden/tokenizer_cases.bin"};
  std::vector<std::string> lines;
  std::vector<std::vector<int32_t>> positions;
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;

  Golden() {
    for (int64_t left = reader.number(); left > 0; --left) {
      lines.push_back(reader.blob());
      positions.push_back(code_point_positions(lines.back()));
    }
    const std::string vocab = read_whole_file(kVocab);
    for (int64_t left = reader.number(); left > 0; --left) {
      tokenizers.push_back(parse_tokenizer_json(with_vocabulary(reader.blob(), vocab), "golden"));
    }
  }
};

TEST_CASE("tokens, spans and pairs equal the library's") {
  Golden golden;
  REQUIRE(golden.lines.size() >= 2000);
  int64_t wrong_ids = 0;
  int64_t wrong_spans = 0;
  const int64_t tokenized = golden.reader.number();
  for (int64_t i = 0; i < tokenized; ++i) {
    const auto which = static_cast<size_t>(golden.reader.number());
    const auto line = static_cast<size_t>(golden.reader.number());
    const int64_t count = golden.reader.number();
    Tokens tokens = golden.tokenizers[which]->tokenize(golden.lines[line]);
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < count; ++t) {
      ids.push_back(static_cast<int32_t>(golden.reader.number()));
    }
    const std::vector<TextSpan> spans = golden.reader.spans(count);
    for (TextSpan& span : tokens.spans) {
      span = in_code_points(span, golden.positions[line]);
    }
    wrong_ids += tokens.ids != ids;
    wrong_spans += tokens.ids == ids && tokens.spans != spans;
    CHECK_MESSAGE(tokens.ids == ids, "tokenizer " << which << ": " << golden.lines[line]);
    CHECK_MESSAGE(tokens.spans == spans, "tokenizer " << which << ": " << golden.lines[line]);
  }
  CHECK(wrong_ids == 0);
  CHECK(wrong_spans == 0);

  int64_t refused = 0;
  constexpr Truncation kStrategies[] = {Truncation::longest_first, Truncation::only_first,
                                        Truncation::only_second};
  const int64_t encoded = golden.reader.number();
  for (int64_t i = 0; i < encoded; ++i) {
    const Tokenizer& tokenizer = *golden.tokenizers[static_cast<size_t>(golden.reader.number())];
    const auto first = static_cast<size_t>(golden.reader.number());
    const auto second = static_cast<size_t>(golden.reader.number());
    const int64_t max_length = golden.reader.number();
    const Truncation strategy = kStrategies[golden.reader.number()];
    const int64_t count = golden.reader.number() - 1;
    std::optional<std::string_view> pair;
    if (second > 0) {
      pair = golden.lines[second - 1];
    }
    if (count < 0) {
      ++refused;
      CHECK_THROWS_AS(tokenizer.encode(golden.lines[first], pair, max_length, strategy),
                      UsageError);
      continue;
    }
    Encoding got = tokenizer.encode(golden.lines[first], pair, max_length, strategy);
    Encoding want;
    for (int64_t t = 0; t < count; ++t) {
      want.ids.push_back(static_cast<int32_t>(golden.reader.number()));
      want.type_ids.push_back(static_cast<int32_t>(golden.reader.number()));
      want.sequence.push_back(static_cast<int8_t>(golden.reader.number() - 1));
    }
    want.spans = golden.reader.spans(count);
    for (size_t t = 0; t < got.spans.size(); ++t) {
      if (got.sequence[t] >= 0) {
        got.spans[t] = in_code_points(got.spans[t],
                                      golden.positions[got.sequence[t] == 0 ? first : second - 1]);
      }
    }
    CHECK(got.ids == want.ids);
    CHECK(got.type_ids == want.type_ids);
    CHECK(got.sequence == want.sequence);
    CHECK(got.spans == want.spans);
  }
  CHECK(refused > 20);
  CHECK(golden.reader.at_end());
}

TEST_CASE("a pair in full") {
  const auto tokenizer = small_tokenizer();
  CHECK(tokenizer->vocabulary_size() == 11);
  CHECK(tokenizer->pad_id() == 0);
  CHECK(tokenizer->special_count(false) == 2);
  CHECK(tokenizer->special_count(true) == 3);
  const Encoding pair = tokenizer->encode("H\u00c9llo, ", "unaffable\u3000qq", 0, Truncation::none);
  CHECK(pair.ids == std::vector<int32_t>{2, 8, 9, 3, 5, 6, 7, 1, 3});
  CHECK(pair.type_ids == std::vector<int32_t>{0, 0, 0, 0, 1, 1, 1, 1, 1});
  CHECK(pair.sequence == std::vector<int8_t>{-1, 0, 0, -1, 1, 1, 1, 1, -1});
  CHECK(pair.spans ==
        std::vector<TextSpan>{
            {0, 0}, {0, 6}, {6, 7}, {0, 0}, {0, 2}, {2, 5}, {5, 9}, {12, 14}, {0, 0}});
  CHECK(tokenizer->encode("", "", 0, Truncation::none).ids == std::vector<int32_t>{2, 3, 3});
}

TEST_CASE("spans of bytes that are not UTF-8 stay inside the text") {
  const auto tokenizer = small_tokenizer();
  const Tokens tokens = tokenizer->tokenize("\xff hello\xe2\x82 world\xc3");
  CHECK(tokens.ids == std::vector<int32_t>{8, 10});
  CHECK(tokens.spans == std::vector<TextSpan>{{2, 7}, {10, 15}});
}

TEST_CASE("truncation") {
  struct Case {
    int32_t first, second;
    int64_t budget;
    size_t first_kept, second_kept;
  };
  // The one of an odd number is the longer text's, the second's when both are equal.
  for (const Case& c : std::vector<Case>{{7, 5, 5, 3, 2},
                                         {5, 7, 5, 2, 3},
                                         {5, 5, 5, 2, 3},
                                         {2, 9, 7, 2, 5},
                                         {9, 2, 7, 5, 2},
                                         {9, 9, 1, 0, 1},
                                         {3, 3, 6, 3, 3},
                                         {0, 9, 4, 0, 4},
                                         {9, 9, 0, 0, 0}}) {
    Tokens first = counted(c.first);
    Tokens second = counted(c.second);
    truncate(first, &second, c.budget, Truncation::longest_first);
    CHECK(first.ids.size() == c.first_kept);
    CHECK(second.ids.size() == c.second_kept);
    CHECK(first.spans.size() == c.first_kept);
    CHECK(second.spans.size() == c.second_kept);
  }
  Tokens first = counted(6);
  Tokens second = counted(4);
  truncate(first, &second, 7, Truncation::only_first);
  CHECK(first.ids == std::vector<int32_t>{0, 1, 2});
  truncate(first, &second, 4, Truncation::only_second);
  CHECK(second.ids == std::vector<int32_t>{0});
  CHECK(has(message_of<UsageError>([&] { truncate(first, &second, 3, Truncation::only_second); }),
            "texts of 3 and 1 tokens, 3 are allowed"));
  CHECK(has(message_of<UsageError>([&] { truncate(first, nullptr, 2, Truncation::only_second); }),
            "only_first"));
  CHECK(has(message_of<UsageError>([&] { truncate(first, &second, 3, Truncation::none); }),
            "4 tokens, 3 are allowed"));
  truncate(first, &second, 4, Truncation::none);
  CHECK(first.ids.size() == 3);
  const auto tokenizer = small_tokenizer();
  CHECK(has(message_of<UsageError>(
                [&] { tokenizer->encode("hello", "world", 2, Truncation::longest_first); }),
            "maximum length of 2 tokens, the special tokens alone are 3"));
  CHECK(tokenizer->encode("hello", "world", 3, Truncation::longest_first).ids ==
        std::vector<int32_t>{2, 3, 3});
}

}  // namespace
}  // namespace lithe
