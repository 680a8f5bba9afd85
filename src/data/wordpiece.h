// WordPiece with BERT's normalizer: longest match first, a word that cannot be cut is unknown.
// Source: the `tokenizers` library, version 0.23, which it is equal to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/added_tokens.h"
#include "data/bert_normalizer.h"
#include "data/token_table.h"
#include "data/tokenizer.h"

namespace lithe {

// What join() puts out, in order: special tokens and the whole of a text.
struct TemplatePiece {
  int32_t id = -1;       // of a special token
  int8_t sequence = -1;  // or which text: 0, 1
  int32_t type_id = 0;
  bool operator==(const TemplatePiece&) const = default;
};

struct WordPieceModel {
  TokenTable vocabulary;
  std::string unk_token = "[UNK]";
  std::string pad_token = "[PAD]";
  std::string continuing_subword_prefix = "##";
  int64_t max_input_chars_per_word = 100;  // a word with more code points is unknown
  BertNormalizer normalizer;
  std::vector<AddedToken> added_tokens;
  std::vector<TemplatePiece> single;  // for one text
  std::vector<TemplatePiece> pair;
};

// [CLS] A [SEP] and [CLS] A [SEP] B [SEP], B and its separator being of type 1.
void set_bert_template(WordPieceModel& model, int32_t cls_id, int32_t sep_id);

// `where` names the source in messages. Throws FileError where ids are not 0, 1, ... each once over
// vocabulary and added tokens together, where unk_token or pad_token is missing, an added token
// contradicts the vocabulary or another one, or a template names an id that there is none of.
std::unique_ptr<Tokenizer> make_wordpiece(WordPieceModel model, std::string_view where);

}  // namespace lithe
