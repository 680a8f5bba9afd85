#include "data/tokenizer_json.h"

#include <array>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "data/json_events.h"
#include "data/unicode_text.h"
#include "data/wordpiece.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;
constexpr int64_t kMaxValues = 200'000;  // beside the vocabulary
constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max();

template <typename... Args>
[[noreturn]] void refuse(std::string_view where, fmt::format_string<Args...> what, Args&&... args) {
  throw FileError("tokenizer", "{}: {}", where, fmt::format(what, std::forward<Args>(args)...));
}

// Makes a tree of all but model.vocab, which goes to the table at once: it is most of the file, and
// a tree takes many times its bytes.
class TreeBuilder final : public JsonEvents {
 public:
  TreeBuilder(std::string_view where, TokenTable* vocabulary)
      : where_(where), vocabulary_(vocabulary) {}

  void begin_object() override {
    if (vocabulary_ != nullptr && in_model() && key_ == "vocab") {
      in_vocabulary_ = true;
      return;
    }
    no_container_in_vocabulary();
    open(json::object());
  }
  void end_object() override {
    if (in_vocabulary_) {
      in_vocabulary_ = false;
      return;
    }
    stack_.pop_back();
  }
  void begin_array() override {
    no_container_in_vocabulary();
    open(json::array());
  }
  void end_array() override { stack_.pop_back(); }

  void key(std::string& name) override {
    if (!in_vocabulary_ && stack_.back()->contains(name)) {
      refuse(where_, "the key {} is there twice; remove one", in_quotes(name));
    }
    if (vocabulary_ != nullptr && in_model() && !in_vocabulary_) {
      if (name == "merges") {
        refuse(where_, "the model has merges, so it is BPE; WordPiece models can be read");
      }
      // Not in the tree, so that a second one has to be noticed here.
      if (name == "vocab" && std::exchange(vocabulary_key_, true)) {
        refuse(where_, "the key 'vocab' is there twice; remove one");
      }
    }
    key_ = std::move(name);
  }
  void string(std::string& value) override {
    if (in_vocabulary_) {
      bad_id("a string");
    }
    // Said at once: the rest of another kind of model would be refused with less clear words.
    if (vocabulary_ != nullptr && in_model() && key_ == "type" && value != "WordPiece") {
      refuse(where_, "the model is {}; WordPiece models can be read", in_quotes(value));
    }
    put(std::move(value));
  }
  void number(std::string_view digits, std::optional<int64_t> integer) override {
    if (in_vocabulary_) {
      if (!integer || *integer < 0 || *integer > kMaxId) {
        bad_id(digits);
      }
      if (!vocabulary_->insert(key_, static_cast<int32_t>(*integer))) {
        refuse(where_, "the vocabulary has {} twice; remove one", in_quotes(key_));
      }
      return;
    }
    // No number that is read here is a fraction, or too large for an id.
    put(integer ? json(*integer) : json(std::numeric_limits<double>::quiet_NaN()));
  }
  void boolean(bool value) override {
    if (in_vocabulary_) {
      bad_id(value ? "true" : "false");
    }
    put(value);
  }
  void null() override {
    if (in_vocabulary_) {
      bad_id("null");
    }
    put(nullptr);
  }

  json take() { return std::move(root_); }

 private:
  bool in_model() const { return stack_.size() == 2 && in_model_; }

  void no_container_in_vocabulary() const {
    if (in_vocabulary_) {
      bad_id("no number");
    }
  }
  [[noreturn]] void bad_id(std::string_view what) const {
    refuse(where_, "the vocabulary gives {} the id {}; ids are whole numbers from 0 to {}",
           in_quotes(key_), in_quotes(what), kMaxId);
  }

  json* put(json value) {
    if (++values_ > kMaxValues) {
      refuse(where_, "has more than {} values beside the vocabulary; is this a tokenizer's file?",
             kMaxValues);
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (stack_.back()->is_array()) {
      return &stack_.back()->emplace_back(std::move(value));
    }
    return &((*stack_.back())[key_] = std::move(value));
  }
  void open(json value) {
    in_model_ = stack_.size() == 1 ? key_ == "model" : in_model_;
    stack_.push_back(put(std::move(value)));
  }

  std::string_view where_;
  TokenTable* vocabulary_;  // null: no vocabulary in this file
  json root_;
  std::vector<json*> stack_;  // the open containers
  std::string key_;
  int64_t values_ = 0;
  bool in_model_ = false;  // what the second open container is
  bool in_vocabulary_ = false;
  bool vocabulary_key_ = false;
};

json parse_tree(std::string_view text, std::string_view where, TokenTable* vocabulary) {
  TreeBuilder builder(where, vocabulary);
  if (const auto problem = read_json(text, builder, kMaxDepth)) {
    refuse(where, "line {}, column {}: {}; save or download the file again", problem->line,
           problem->column, problem->what);
  }
  json tree = builder.take();
  if (!tree.is_object()) {
    refuse(where, "is no JSON object; save or download the file again");
  }
  return tree;
}

// Members of one object, by type; `path` is the object's own, for messages.
class Reader {
 public:
  Reader(const json& object, std::string path, std::string_view where)
      : object_(object), path_(std::move(path)), where_(where) {
    if (!object.is_object()) {
      refuse(where, "{} is no object; save or download the file again", path_);
    }
  }

  // Null when absent, or null itself.
  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  bool has(const char* key) const { return object_.contains(key); }
  const json& need(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) {
      refuse(where_, "{} is missing; save or download the file again", name(key));
    }
    return *value;
  }
  std::optional<bool> boolean(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_boolean()) {
      refuse(where_, "{} is neither true nor false; correct it", name(key));
    }
    return value->get<bool>();
  }
  std::optional<std::string> text(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_string()) {
      refuse(where_, "{} is no string; correct it", name(key));
    }
    return value->get<std::string>();
  }
  std::string need_text(const char* key) const {
    need(key);
    return *text(key);
  }
  int64_t need_count(const char* key) const {
    const json& value = need(key);
    if (!value.is_number_integer() || value.get<int64_t>() < 0) {
      refuse(where_, "{} is no whole number from 0 on; correct it", name(key));
    }
    return value.get<int64_t>();
  }
  int32_t need_id(const char* key) const {
    const int64_t id = need_count(key);
    if (id > kMaxId) {
      refuse(where_, "{} is {}; ids go up to {}", name(key), id, kMaxId);
    }
    return static_cast<int32_t>(id);
  }
  std::string name(const char* key) const { return path_.empty() ? key : path_ + "." + key; }
  std::string_view where() const { return where_; }

 private:
  const json& object_;
  std::string path_;
  std::string_view where_;
};

AddedToken read_added_token(const Reader& reader, int32_t id) {
  AddedToken token;
  token.content = reader.need_text("content");
  token.id = id;
  token.single_word = reader.boolean("single_word").value_or(false);
  token.lstrip = reader.boolean("lstrip").value_or(false);
  token.rstrip = reader.boolean("rstrip").value_or(false);
  token.normalized =
      reader.boolean("normalized").value_or(!reader.boolean("special").value_or(false));
  return token;
}

BertNormalizer read_normalizer(const Reader& root) {
  const json* section = root.find("normalizer");
  if (section == nullptr) {
    return {.clean_text = false,
            .handle_chinese_chars = false,
            .strip_accents = false,
            .lowercase = false};
  }
  const Reader reader(*section, "normalizer", root.where());
  if (const std::string type = reader.need_text("type"); type != "BertNormalizer") {
    refuse(root.where(), "the normalizer is {}; BertNormalizer is supported", in_quotes(type));
  }
  BertNormalizer normalizer;
  normalizer.clean_text = reader.boolean("clean_text").value_or(true);
  normalizer.handle_chinese_chars = reader.boolean("handle_chinese_chars").value_or(true);
  normalizer.strip_accents = reader.boolean("strip_accents");
  normalizer.lowercase = reader.boolean("lowercase").value_or(true);
  return normalizer;
}

std::vector<TemplatePiece> read_template(const Reader& reader, const char* key,
                                         int expected_texts) {
  constexpr size_t kMaxPieces = 64;
  const json& list = reader.need(key);
  if (!list.is_array() || list.size() > kMaxPieces) {
    refuse(reader.where(), "{} is no list of up to {} pieces; correct it", reader.name(key),
           kMaxPieces);
  }
  const Reader specials(reader.need("special_tokens"), reader.name("special_tokens"),
                        reader.where());
  std::vector<TemplatePiece> pieces;
  std::array<int, 2> texts{};
  for (const json& item : list) {
    const Reader piece(item, reader.name(key), reader.where());
    const bool special = piece.has("SpecialToken");
    const char* kind = special ? "SpecialToken" : "Sequence";
    const Reader body(piece.need(kind), piece.name(kind), reader.where());
    const int32_t type_id = body.need_id("type_id");
    const std::string id = body.need_text("id");
    if (!special) {
      if (id != "A" && id != "B") {
        refuse(reader.where(), "{} has the sequence {}; A and B are known", reader.name(key),
               in_quotes(id));
      }
      const size_t sequence = id == "A" ? 0 : 1;
      ++texts[sequence];
      pieces.push_back({.sequence = static_cast<int8_t>(sequence), .type_id = type_id});
      continue;
    }
    const Reader token(specials.need(id.c_str()), specials.name(in_quotes(id).c_str()),
                       reader.where());
    const json& ids = token.need("ids");
    if (!ids.is_array() || ids.size() > kMaxPieces) {
      refuse(reader.where(), "{} is no list of up to {} ids; correct it", token.name("ids"),
             kMaxPieces);
    }
    for (const json& value : ids) {
      if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() > kMaxId) {
        refuse(reader.where(), "{} holds something that is no id; correct it", token.name("ids"));
      }
      pieces.push_back({.id = value.get<int32_t>(), .type_id = type_id});
    }
  }
  if (texts[0] != 1 || texts[1] != expected_texts - 1) {
    refuse(reader.where(), "{} has sequence A {} times and B {} times; it needs {}",
           reader.name(key), texts[0], texts[1],
           expected_texts == 1 ? "A once and no B" : "each once");
  }
  return pieces;
}

int32_t read_named_id(const Reader& reader, const char* key) {
  const json& value = reader.need(key);
  if (!value.is_array() || value.size() != 2 || !value[1].is_number_integer() ||
      value[1].get<int64_t>() < 0 || value[1].get<int64_t>() > kMaxId) {
    refuse(reader.where(), "{} is no pair of a token and its id; correct it", reader.name(key));
  }
  return value[1].get<int32_t>();
}

void read_post_processor(const Reader& root, WordPieceModel& model) {
  const json* section = root.find("post_processor");
  if (section == nullptr) {
    refuse(root.where(),
           "has no post_processor, so nothing says where [CLS] and [SEP] go; save the file again "
           "with BertProcessing, or remove it to use vocab.txt");
  }
  const Reader reader(*section, "post_processor", root.where());
  const std::string type = reader.need_text("type");
  if (type == "BertProcessing") {
    set_bert_template(model, read_named_id(reader, "cls"), read_named_id(reader, "sep"));
  } else if (type == "TemplateProcessing") {
    model.single = read_template(reader, "single", 1);
    model.pair = read_template(reader, "pair", 2);
  } else {
    refuse(root.where(),
           "the post_processor is {}; BertProcessing and TemplateProcessing are supported",
           in_quotes(type));
  }
}

void read_model(const Reader& root, WordPieceModel& model) {
  const Reader reader(root.need("model"), "model", root.where());
  // Older files have no type; these two fields are WordPiece's alone.
  if (!reader.has("type") &&
      !(reader.has("continuing_subword_prefix") && reader.has("max_input_chars_per_word"))) {
    refuse(root.where(), "model.type is missing; WordPiece models can be read");
  }
  if (model.vocabulary.size() == 0) {
    refuse(root.where(), "model.vocab is missing or empty; save or download the file again");
  }
  model.unk_token = reader.need_text("unk_token");
  model.continuing_subword_prefix = reader.need_text("continuing_subword_prefix");
  model.max_input_chars_per_word = reader.need_count("max_input_chars_per_word");
}

// A special token is a string, or an object with its content.
void read_token_name(const Reader& reader, const char* key, std::string& name) {
  const json* value = reader.find(key);
  if (value == nullptr) {
    return;
  }
  name = value->is_object() ? Reader(*value, key, reader.where()).need_text("content")
                            : *reader.text(key);
}

}  // namespace

void TokenizerConfig::apply(BertNormalizer& normalizer) const {
  normalizer.lowercase = do_lower_case.value_or(normalizer.lowercase);
  normalizer.handle_chinese_chars =
      tokenize_chinese_chars.value_or(normalizer.handle_chinese_chars);
  normalizer.strip_accents = strip_accents.value_or(normalizer.strip_accents);
}

TokenizerConfig parse_tokenizer_config(std::string_view text, std::string_view where) {
  const json tree = parse_tree(text, where, nullptr);
  const Reader reader(tree, "", where);
  TokenizerConfig config;
  config.tokenizer_class = reader.text("tokenizer_class").value_or("");
  config.do_lower_case = reader.boolean("do_lower_case");
  config.tokenize_chinese_chars = reader.boolean("tokenize_chinese_chars");
  if (reader.has("strip_accents")) {
    config.strip_accents = reader.boolean("strip_accents");
  }
  read_token_name(reader, "unk_token", config.unk_token);
  read_token_name(reader, "cls_token", config.cls_token);
  read_token_name(reader, "sep_token", config.sep_token);
  read_token_name(reader, "pad_token", config.pad_token);
  read_token_name(reader, "mask_token", config.mask_token);
  if (const json* tokens = reader.find("added_tokens_decoder")) {
    if (!tokens->is_object()) {
      refuse(where, "added_tokens_decoder is no object; correct it");
    }
    for (const auto& [key, value] : tokens->items()) {
      int32_t id = -1;
      const char* end = key.data() + key.size();
      if (std::from_chars(key.data(), end, id).ptr != end || id < 0) {
        refuse(where, "added_tokens_decoder has the id {}; ids are whole numbers from 0 to {}",
               in_quotes(key), kMaxId);
      }
      config.added_tokens.push_back(
          read_added_token(Reader(value, "added_tokens_decoder." + key, where), id));
    }
  }
  return config;
}

std::unique_ptr<Tokenizer> parse_tokenizer_json(std::string_view text, std::string_view where,
                                                const TokenizerConfig& config) {
  WordPieceModel model;
  const json tree = parse_tree(text, where, &model.vocabulary);
  const Reader root(tree, "", where);
  read_model(root, model);
  model.normalizer = read_normalizer(root);
  config.apply(model.normalizer);
  const Reader splitter(root.need("pre_tokenizer"), "pre_tokenizer", where);
  if (const std::string type = splitter.need_text("type"); type != "BertPreTokenizer") {
    refuse(where, "the pre_tokenizer is {}; BertPreTokenizer is supported", in_quotes(type));
  }
  if (const json* added = root.find("added_tokens")) {
    if (!added->is_array()) {
      refuse(where, "added_tokens is no list; save or download the file again");
    }
    for (const json& item : *added) {
      const Reader reader(item, "added_tokens", where);
      model.added_tokens.push_back(read_added_token(reader, reader.need_id("id")));
    }
  }
  read_post_processor(root, model);
  model.pad_token = config.pad_token;
  return make_wordpiece(std::move(model), where);
}

}  // namespace lithe
