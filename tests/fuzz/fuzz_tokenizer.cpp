// The first byte chooses what the rest is: tokenizer.json, vocab.txt, tokenizer_config.json, or
// text for a fixed tokenizer. Anything but FileError, or a span outside of the text, is a finding.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "data/tokenizer_files.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

constexpr std::string_view kVocab =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##a\nb\n##b\nab\n##ab\n.\n[\n]\n\u4e2d\n\u00e9\n";
constexpr std::string_view kConfigs[] = {
    R"({})",
    R"({"do_lower_case": false})",
    R"({"strip_accents": false, "tokenize_chinese_chars": false})",
    R"({"added_tokens_decoder": {"16": {"content": "a b", "normalized": true},
                                 "17": {"content": "[B]", "lstrip": true, "rstrip": true},
                                 "18": {"content": "bb", "single_word": true}}})",
};

void check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void check_tokens(const Tokens& tokens, std::string_view text, const Tokenizer& tokenizer) {
  check(tokens.ids.size() == tokens.spans.size());
  TextSpan last;
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    const TextSpan span = tokens.spans[i];
    check(tokens.ids[i] >= 0 && tokens.ids[i] < tokenizer.vocabulary_size());
    check(span.begin < span.end && static_cast<size_t>(span.end) <= text.size());
    // Pieces of one code point's expansion share its span.
    check(span.begin >= last.begin && span.end >= last.end);
    last = span;
  }
}

void tokenize(const Tokenizer& tokenizer, std::string_view text) {
  const Tokens tokens = tokenizer.tokenize(text);
  check_tokens(tokens, text, tokenizer);
  const std::string_view half = text.substr(text.size() / 2);
  const auto length = static_cast<int64_t>(tokens.ids.size() / 2) + tokenizer.special_count(true);
  const Encoding pair = tokenizer.encode(text, half, length, Truncation::longest_first);
  check(length == 0 || static_cast<int64_t>(pair.ids.size()) <= length);
  check(pair.type_ids.size() == pair.ids.size() && pair.spans.size() == pair.ids.size());
}

void run(unsigned mode, std::string_view rest) {
  if (mode % 8 < 4) {
    static const std::unique_ptr<Tokenizer> tokenizers[] = {
        parse_vocab(kVocab, "fixed", parse_tokenizer_config(kConfigs[0], "fixed")),
        parse_vocab(kVocab, "fixed", parse_tokenizer_config(kConfigs[1], "fixed")),
        parse_vocab(kVocab, "fixed", parse_tokenizer_config(kConfigs[2], "fixed")),
        parse_vocab(kVocab, "fixed", parse_tokenizer_config(kConfigs[3], "fixed")),
    };
    tokenize(*tokenizers[mode % 8], rest);
    return;
  }
  try {
    if (mode % 8 == 4) {
      parse_vocab(kVocab, "vocab.txt", parse_tokenizer_config(rest, "tokenizer_config.json"));
    } else if (mode % 8 == 5) {
      tokenize(*parse_vocab(rest, "vocab.txt"), rest);
    } else {
      tokenize(*parse_tokenizer_json(rest, "tokenizer.json"), rest);
    }
  } catch (const FileError&) {
    return;
  }
}

}  // namespace
}  // namespace lithe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) {
    lithe::run(data[0], {reinterpret_cast<const char*>(data) + 1, size - 1});
  }
  return 0;
}
