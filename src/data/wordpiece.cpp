#include "data/wordpiece.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "data/unicode_text.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

bool is_char_start(char byte) { return (static_cast<unsigned char>(byte) & 0xc0U) != 0x80U; }

// True when `word` has more than `limit` code points.
bool is_longer(std::string_view word, int64_t limit) {
  return static_cast<int64_t>(word.size()) > limit &&
         std::count_if(word.begin(), word.end(), is_char_start) > limit;
}

class WordPiece final : public Tokenizer {
 public:
  WordPiece(WordPieceModel model, std::string_view where) : model_(std::move(model)) {
    read_added_tokens(where);
    check_ids(where);
    unk_id_ = special_id(model_.unk_token, "unknown", where);
    pad_id_ = special_id(model_.pad_token, "padding", where);
    const TokenTable& vocabulary = model_.vocabulary;
    const std::string_view prefix = model_.continuing_subword_prefix;
    for (int64_t i = 0; i < vocabulary.size(); ++i) {
      if (vocabulary.text(i).starts_with(prefix)) {
        continuing_.insert(vocabulary.text(i).substr(prefix.size()), vocabulary.id(i));
      }
    }
  }

  int64_t vocabulary_size() const override { return size_; }
  int32_t pad_id() const override { return pad_id_; }
  int64_t special_count(bool pair) const override {
    const std::vector<TemplatePiece>& pieces = pair ? model_.pair : model_.single;
    return std::count_if(pieces.begin(), pieces.end(),
                         [](const TemplatePiece& piece) { return piece.sequence < 0; });
  }

  Tokens tokenize(std::string_view text) const override {
    if (text.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
      throw UsageError("tokenizer", "a text of {} bytes; at most {} can be given, split it",
                       text.size(), std::numeric_limits<int32_t>::max());
    }
    Tokens tokens;
    NormalizedText scratch;
    std::vector<AddedTokenMatch> matches;
    raw_tokens_.find(text, matches);
    size_t at = 0;
    for (const AddedTokenMatch& match : matches) {
      between_raw_tokens(text, at, match.begin, scratch, tokens);
      tokens.ids.push_back(match.id);
      tokens.spans.push_back({static_cast<int32_t>(match.begin), static_cast<int32_t>(match.end)});
      at = match.end;
    }
    between_raw_tokens(text, at, text.size(), scratch, tokens);
    return tokens;
  }

  Encoding join(const Tokens& first, const Tokens* second) const override {
    const std::vector<TemplatePiece>& pieces = second != nullptr ? model_.pair : model_.single;
    Encoding out;
    const size_t count = static_cast<size_t>(special_count(second != nullptr)) + first.ids.size() +
                         (second != nullptr ? second->ids.size() : 0);
    out.ids.reserve(count);
    out.type_ids.reserve(count);
    out.sequence.reserve(count);
    out.spans.reserve(count);
    for (const TemplatePiece& piece : pieces) {
      if (piece.sequence < 0) {
        out.ids.push_back(piece.id);
        out.spans.emplace_back();
      } else {
        // The template of a single text holds no second one.
        const Tokens& tokens = piece.sequence == 0 || second == nullptr ? first : *second;
        out.ids.insert(out.ids.end(), tokens.ids.begin(), tokens.ids.end());
        out.spans.insert(out.spans.end(), tokens.spans.begin(), tokens.spans.end());
      }
      out.type_ids.resize(out.ids.size(), piece.type_id);
      out.sequence.resize(out.ids.size(), piece.sequence);
    }
    return out;
  }

 private:
  void read_added_tokens(std::string_view where) {
    TokenTable contents;
    for (AddedToken& token : model_.added_tokens) {
      if (token.content.empty()) {
        throw FileError("tokenizer", "{}: the added token of id {} is empty; remove it", where,
                        token.id);
      }
      if (!contents.insert(token.content, token.id)) {
        throw FileError("tokenizer", "{}: the added token {} is listed twice; remove one", where,
                        in_quotes(token.content));
      }
      const int32_t known = model_.vocabulary.find(token.content);
      if (known >= 0 && known != token.id) {
        throw FileError("tokenizer",
                        "{}: the added token {} has the id {}, the vocabulary gives it {}; make "
                        "them equal",
                        where, in_quotes(token.content), token.id, known);
      }
      if (known < 0) {
        added_.insert(token.content, token.id);
      }
      if (!token.normalized) {
        raw_tokens_.add(token);
        continue;
      }
      NormalizedText text;
      normalize(token.content, 0, model_.normalizer, text);
      const std::string given = std::exchange(token.content, text.text);
      if (text.text.empty() || !normalized_tokens_.add(token)) {
        throw FileError("tokenizer",
                        "{}: the added token {} {} after normalization; remove it, or give it "
                        "\"normalized\": false",
                        where, in_quotes(given),
                        text.text.empty() ? "is empty" : "is equal to another one");
      }
    }
  }

  // Ids are rows of the embedding matrix: one that no token has, or that two have, means a damaged
  // file. Nothing is allocated by the largest id.
  void check_ids(std::string_view where) {
    size_ = model_.vocabulary.size() + added_.size();
    std::vector<const TokenTable*> tables{&model_.vocabulary, &added_};
    std::vector<bool> seen(static_cast<size_t>(size_));
    for (const TokenTable* table : tables) {
      for (int64_t i = 0; i < table->size(); ++i) {
        const int32_t id = table->id(i);
        if (id < 0 || id >= size_) {
          throw FileError("tokenizer",
                          "{}: the token {} has the id {}, but there are {} tokens and ids must be "
                          "0 to {}, each once; look for entries that are missing",
                          where, in_quotes(table->text(i)), id, size_, size_ - 1);
        }
        if (seen[static_cast<size_t>(id)]) {
          throw FileError("tokenizer",
                          "{}: the id {} of the token {} belongs to another token too; ids must be "
                          "0 to {}, each once",
                          where, id, in_quotes(table->text(i)), size_ - 1);
        }
        seen[static_cast<size_t>(id)] = true;
      }
    }
    for (const auto* pieces : {&model_.single, &model_.pair}) {
      for (const TemplatePiece& piece : *pieces) {
        if (piece.sequence < 0 && (piece.id < 0 || piece.id >= size_)) {
          throw FileError("tokenizer",
                          "{}: the post-processor adds a token of id {}, but there are {} tokens; "
                          "correct its special tokens",
                          where, piece.id, size_);
        }
      }
    }
  }

  int32_t special_id(std::string_view token, std::string_view role, std::string_view where) const {
    const int32_t id = model_.vocabulary.find(token);
    // The library looks the unknown token up in the vocabulary proper.
    const int32_t any = id < 0 && token != model_.unk_token ? added_.find(token) : id;
    if (any < 0) {
      throw FileError("tokenizer",
                      "{}: the {} token {} is not among its {} tokens; is this the vocabulary of a "
                      "BERT model? Else name the token in tokenizer_config.json",
                      where, role, in_quotes(token), size_);
    }
    return any;
  }

  void between_raw_tokens(std::string_view text, size_t begin, size_t end, NormalizedText& scratch,
                          Tokens& tokens) const {
    if (begin == end) {
      return;
    }
    normalize(text.substr(begin, end - begin), static_cast<int32_t>(begin), model_.normalizer,
              scratch);
    size_t at = 0;
    if (!normalized_tokens_.empty()) {
      std::vector<AddedTokenMatch> matches;
      normalized_tokens_.find(scratch.text, matches);
      for (const AddedTokenMatch& match : matches) {
        words(scratch, at, match.begin, tokens);
        push(match.id, scratch, match.begin, match.end, tokens);
        at = match.end;
      }
    }
    words(scratch, at, scratch.text.size(), tokens);
  }

  void words(const NormalizedText& text, size_t at, size_t end, Tokens& tokens) const {
    for (;;) {
      const WordRange word = next_word(text.text, at, end);
      if (word.begin == word.end) {
        return;
      }
      pieces(text, word, tokens);
      at = word.end;
    }
  }

  void pieces(const NormalizedText& text, WordRange range, Tokens& tokens) const {
    const std::string_view word =
        std::string_view(text.text).substr(range.begin, range.end - range.begin);
    if (is_longer(word, model_.max_input_chars_per_word)) {
      push(unk_id_, text, range.begin, range.end, tokens);
      return;
    }
    const size_t before = tokens.ids.size();
    size_t at = 0;
    while (at < word.size()) {
      const TokenTable& table = at == 0 ? model_.vocabulary : continuing_;
      size_t end = std::min(word.size(), at + table.longest());
      int32_t id = -1;
      for (; end > at; --end) {
        if (end == word.size() || is_char_start(word[end])) {
          id = table.find(word.substr(at, end - at));
          if (id >= 0) {
            break;
          }
        }
      }
      if (id < 0) {
        tokens.ids.resize(before);
        tokens.spans.resize(before);
        push(unk_id_, text, range.begin, range.end, tokens);
        return;
      }
      push(id, text, range.begin + at, range.begin + end, tokens);
      at = end;
    }
  }

  static void push(int32_t id, const NormalizedText& text, size_t begin, size_t end,
                   Tokens& tokens) {
    tokens.ids.push_back(id);
    tokens.spans.push_back(text.span(begin, end));
  }

  WordPieceModel model_;
  TokenTable continuing_;  // vocabulary entries with the prefix, without it
  TokenTable added_;       // added tokens that the vocabulary does not have
  AddedTokenMatcher raw_tokens_;
  AddedTokenMatcher normalized_tokens_;
  int64_t size_ = 0;
  int32_t unk_id_ = 0;
  int32_t pad_id_ = 0;
};

}  // namespace

void set_bert_template(WordPieceModel& model, int32_t cls_id, int32_t sep_id) {
  const TemplatePiece cls{.id = cls_id};
  const TemplatePiece sep{.id = sep_id};
  const TemplatePiece first{.sequence = 0};
  const TemplatePiece second{.sequence = 1, .type_id = 1};
  model.single = {cls, first, sep};
  model.pair = {cls, first, sep, second, {.id = sep_id, .type_id = 1}};
}

std::unique_ptr<Tokenizer> make_wordpiece(WordPieceModel model, std::string_view where) {
  return std::make_unique<WordPiece>(std::move(model), where);
}

}  // namespace lithe
