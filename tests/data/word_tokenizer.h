// A tokenizer for tests: words between spaces, joined as [CLS] a [SEP] b [SEP].
#pragma once

#include <algorithm>

#include "data/tokenizer.h"

namespace lithe {

class WordTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kPad = 0, kCls = 1, kSep = 2, kFirst = 3;

  int64_t vocabulary_size() const override { return 1000; }
  int32_t pad_id() const override { return kPad; }
  int64_t special_count(bool pair) const override { return pair ? 3 : 2; }
  // The id of a word is its length.
  Tokens tokenize(std::string_view text) const override {
    Tokens out;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find(' ', at), text.size());
      if (end > at) {
        out.ids.push_back(kFirst + static_cast<int32_t>(end - at));
        out.spans.push_back({static_cast<int32_t>(at), static_cast<int32_t>(end)});
      }
      at = end + 1;
    }
    return out;
  }
  Encoding join(const Tokens& first, const Tokens* second) const override {
    Encoding out;
    add(out, kCls, 0, -1, {});
    add(out, first, 0);
    if (second != nullptr) {
      add(out, *second, 1);
    }
    return out;
  }

 private:
  static void add(Encoding& out, int32_t id, int32_t type, int8_t sequence, TextSpan span) {
    out.ids.push_back(id);
    out.type_ids.push_back(type);
    out.sequence.push_back(sequence);
    out.spans.push_back(span);
  }
  static void add(Encoding& out, const Tokens& tokens, int8_t sequence) {
    for (size_t i = 0; i < tokens.ids.size(); ++i) {
      add(out, tokens.ids[i], sequence, sequence, tokens.spans[i]);
    }
    add(out, kSep, sequence, -1, {});
  }
};

}  // namespace lithe
