// The files a tokenizer is read from.
#pragma once

#include <memory>
#include <string_view>

#include "data/tokenizer.h"
#include "data/tokenizer_json.h"

namespace lithe {

// vocab.txt: a token a line, its id being the number of the line from 0. `where` names the text in
// messages. Throws FileError, with the line, for: bytes that are not UTF-8, an empty line, one of
// more than 1024 bytes, a token given twice; and where a special token is missing.
std::unique_ptr<Tokenizer> parse_vocab(std::string_view text, std::string_view where,
                                       const TokenizerConfig& config = {});

}  // namespace lithe
