// tokenizer.json and tokenizer_config.json of a model folder.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/added_tokens.h"
#include "data/bert_normalizer.h"
#include "data/tokenizer.h"

namespace lithe {

// What tokenizer_config.json says, where it says it.
struct TokenizerConfig {
  std::string tokenizer_class;
  std::optional<bool> do_lower_case;
  std::optional<bool> tokenize_chinese_chars;
  std::optional<std::optional<bool>> strip_accents;  // null: as do_lower_case
  std::string unk_token = "[UNK]";
  std::string cls_token = "[CLS]";
  std::string sep_token = "[SEP]";
  std::string pad_token = "[PAD]";
  std::string mask_token = "[MASK]";
  std::vector<AddedToken> added_tokens;  // added_tokens_decoder

  // Replaces the settings that are given.
  void apply(BertNormalizer& normalizer) const;
};

// `where` names the text in messages. Throws FileError for JSON that is none, for values of a wrong
// type and for keys given twice.
TokenizerConfig parse_tokenizer_config(std::string_view json, std::string_view where);

// Throws FileError likewise, and for a model, normalizer, pre-tokenizer or post-processor other
// than BERT's.
std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view json, std::string_view where,
                                                const TokenizerConfig& config = {});

}  // namespace lithe
