#include "data/tokenizer_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "data/unicode_text.h"
#include "data/wordpiece.h"
#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTokenBytes = 1024;
constexpr uintmax_t kMaxFileBytes = uintmax_t{256} << 20;  // the largest real one has about 30 MiB

// Tokenizers that do with a vocab.txt what BERT's does.
constexpr std::array<std::string_view, 10> kBertClasses{
    "BertTokenizer",     "BertTokenizerFast",     "DistilBertTokenizer", "DistilBertTokenizerFast",
    "ElectraTokenizer",  "ElectraTokenizerFast",  "MobileBertTokenizer", "MobileBertTokenizerFast",
    "ConvBertTokenizer", "ConvBertTokenizerFast",
};

TokenTable read_vocabulary(std::string_view text, std::string_view where) {
  if (text.starts_with("\xef\xbb\xbf")) {
    throw FileError("tokenizer",
                    "{}: begins with a byte-order mark, which would be part of its first token; "
                    "save it as UTF-8 without",
                    where);
  }
  TokenTable vocabulary;
  for (size_t begin = 0; begin < text.size();) {
    const size_t newline = std::min(text.find('\n', begin), text.size());
    std::string_view token = text.substr(begin, newline - begin);
    if (token.ends_with('\r')) {
      token.remove_suffix(1);
    }
    const int64_t line = vocabulary.size() + 1;
    const auto refuse = [&](std::string_view what) {
      throw FileError("tokenizer", "{}:{}: {}", where, line, what);
    };
    if (token.empty()) {
      refuse("the line is empty; remove it, or put the token there that belongs to its id");
    }
    if (token.size() > kMaxTokenBytes) {
      refuse(
          fmt::format("a token of {} bytes, at most {} are read; a vocabulary has a token a line",
                      token.size(), kMaxTokenBytes));
    }
    if (const size_t at = find_ill_formed(token); at != std::string_view::npos) {
      refuse(fmt::format("byte 0x{:02x} is not UTF-8; download the file again or convert it",
                         static_cast<unsigned char>(token[at])));
    }
    if (!vocabulary.insert(token, static_cast<int32_t>(line - 1))) {
      refuse(
          fmt::format("the token {} is on line {} already; remove one, and check that ids still "
                      "fit the model",
                      in_quotes(token), vocabulary.find(token) + 1));
    }
    begin = newline + 1;
  }
  return vocabulary;
}

std::string read_limited(const fs::path& path) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  if (error) {
    throw FileError("tokenizer", "{}: {}; give a tokenizer.json, a vocab.txt or a model folder",
                    path.string(), error.message());
  }
  if (bytes > kMaxFileBytes) {
    throw FileError("tokenizer", "{}: has {} bytes, at most {} are read; is this a tokenizer?",
                    path.string(), bytes, kMaxFileBytes);
  }
  return read_whole_file(path);
}

// Only regular files: a folder or a pipe of that name is none.
bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

}  // namespace

std::unique_ptr<Tokenizer> parse_vocab(std::string_view text, std::string_view where,
                                       const TokenizerConfig& config) {
  if (!config.tokenizer_class.empty() && std::find(kBertClasses.begin(), kBertClasses.end(),
                                                   config.tokenizer_class) == kBertClasses.end()) {
    throw FileError("tokenizer",
                    "{}: tokenizer_config.json says that it belongs to a {}, which may treat it "
                    "otherwise than BERT; save that tokenizer as tokenizer.json",
                    where, in_quotes(config.tokenizer_class));
  }
  WordPieceModel model;
  model.vocabulary = read_vocabulary(text, where);
  model.unk_token = config.unk_token;
  model.pad_token = config.pad_token;
  config.apply(model.normalizer);
  model.added_tokens = config.added_tokens;
  const auto add_special = [&](const std::string& token) {
    const int32_t id = model.vocabulary.find(token);
    const bool known = std::any_of(model.added_tokens.begin(), model.added_tokens.end(),
                                   [&](const AddedToken& added) { return added.content == token; });
    if (id >= 0 && !known) {
      model.added_tokens.push_back({.content = token, .id = id});
    }
    return id;
  };
  add_special(config.unk_token);
  add_special(config.pad_token);
  add_special(config.mask_token);
  std::array<int32_t, 2> ids{};
  for (size_t i = 0; i < 2; ++i) {
    const std::string& token = i == 0 ? config.cls_token : config.sep_token;
    ids[i] = add_special(token);
    if (ids[i] < 0) {
      throw FileError("tokenizer",
                      "{}: the special token {} is not among its {} tokens; is this the vocabulary "
                      "of a BERT model? Else name the token in tokenizer_config.json",
                      where, in_quotes(token), model.vocabulary.size());
    }
  }
  set_bert_template(model, ids[0], ids[1]);
  return make_wordpiece(std::move(model), where);
}

std::unique_ptr<Tokenizer> open_tokenizer(const fs::path& path) {
  fs::path file = path;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    file = path / "tokenizer.json";
    if (!is_file(file)) {
      file = path / "vocab.txt";
    }
    if (!is_file(file)) {
      throw FileError("tokenizer",
                      "{}: the folder has neither tokenizer.json nor vocab.txt; give the folder of "
                      "a BERT model or the file itself",
                      path.string());
    }
  }
  const std::string text = read_limited(file);
  TokenizerConfig config;
  if (const fs::path beside = file.parent_path() / "tokenizer_config.json";
      beside != file && is_file(beside)) {
    config = parse_tokenizer_config(read_limited(beside), beside.string());
  }
  if (file.extension() == ".json") {
    return parse_tokenizer_json(text, file.string(), config);
  }
  if (is_file(file.parent_path() / "added_tokens.json") && config.added_tokens.empty()) {
    throw FileError("tokenizer",
                    "{}: added_tokens.json lies beside it, which is not read; save the tokenizer "
                    "again, as tokenizer.json",
                    file.string());
  }
  return parse_vocab(text, file.string(), config);
}

}  // namespace lithe
