#include "data/tokenizer_files.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "io/temp_folder.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

using nlohmann::json;

constexpr const char* kVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\nHello\n";

json special(const char* token, int type_id) {
  return {{"SpecialToken", {{"id", token}, {"type_id", type_id}}}};
}
json sequence(const char* which, int type_id) {
  return {{"Sequence", {{"id", which}, {"type_id", type_id}}}};
}

json template_processing() {
  const auto token = [](const char* name, int id) -> json {
    return {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", {special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)}},
          {"pair",
           {special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0), sequence("B", 1),
            special("[SEP]", 1)}},
          {"special_tokens", {{"[CLS]", token("[CLS]", 2)}, {"[SEP]", token("[SEP]", 3)}}}};
}

json sample() {
  return {{"version", "1.0"},
          {"truncation", {{"max_length", 1}}},
          {"padding", {{"pad_token", "nowhere"}}},
          {"added_tokens", {{{"id", 3}, {"content", "[SEP]"}, {"special", true}}}},
          {"normalizer",
           {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", true},
            {"strip_accents", nullptr},
            {"lowercase", true}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor", template_processing()},
          {"decoder", {{"type", "WordPiece"}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", "[UNK]"},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab",
             {{"[PAD]", 0},
              {"[UNK]", 1},
              {"[CLS]", 2},
              {"[SEP]", 3},
              {"hello", 4},
              {"##s", 5},
              {"Hello", 6}}}}}};
}

std::string refusal(const json& tree) {
  return message_of<FileError>([&] { parse_tokenizer_json(tree.dump(), "t.json"); });
}
std::string text_refusal(std::string_view text) {
  return message_of<FileError>([&] { parse_tokenizer_json(text, "t.json"); });
}
std::string vocab_refusal(std::string_view text, std::string_view config = "{}") {
  return message_of<FileError>(
      [&] { parse_vocab(text, "vocab.txt", parse_tokenizer_config(config, "config")); });
}

TEST_CASE("tokenizer.json") {
  const auto tokenizer = parse_tokenizer_json(sample().dump(), "t.json");
  CHECK(tokenizer->vocabulary_size() == 7);
  CHECK(tokenizer->encode("Hellos [SEP]", std::nullopt, 0, Truncation::none).ids ==
        std::vector<int32_t>{2, 4, 5, 3, 3});
  SUBCASE("BertProcessing, a model without type and an added token beyond the vocabulary") {
    json tree = sample();
    tree["model"].erase("type");
    tree["post_processor"] = {
        {"type", "BertProcessing"}, {"cls", {"[CLS]", 2}}, {"sep", {"[SEP]", 3}}};
    tree["added_tokens"].push_back({{"id", 7}, {"content", "NEW"}, {"normalized", true}});
    const auto other = parse_tokenizer_json(tree.dump(), "t.json");
    CHECK(other->vocabulary_size() == 8);
    CHECK(other->encode("hello new", "hello", 0, Truncation::none).ids ==
          std::vector<int32_t>{2, 4, 7, 3, 4, 3});
  }
  SUBCASE("no normalizer changes nothing") {
    json tree = sample();
    tree["normalizer"] = nullptr;
    CHECK(parse_tokenizer_json(tree.dump(), "t.json")->tokenize("Hello HELLO").ids ==
          std::vector<int32_t>{6, 1});
  }
  SUBCASE("the configuration beside it goes before its own settings") {
    const TokenizerConfig config = parse_tokenizer_config(R"({"do_lower_case": false})", "c");
    CHECK(parse_tokenizer_json(sample().dump(), "t.json", config)->tokenize("Hello").ids ==
          std::vector<int32_t>{6});
  }
}

TEST_CASE("tokenizer.json of other kinds is refused by name") {
  const auto with = [](const char* pointer, const json& value) {
    json tree = sample();
    tree[json::json_pointer(pointer)] = value;
    return refusal(tree);
  };
  CHECK(has(with("/model/type", "BPE"), "t.json: the model is 'BPE'"));
  CHECK(has(with("/model/merges", json::array({"a b"})), "BPE"));
  CHECK(has(with("/normalizer/type", "Precompiled"), "the normalizer is 'Precompiled'"));
  CHECK(has(with("/pre_tokenizer/type", "ByteLevel"), "the pre_tokenizer is 'ByteLevel'"));
  CHECK(has(with("/pre_tokenizer", nullptr), "pre_tokenizer is missing"));
  CHECK(has(with("/post_processor/type", "RobertaProcessing"), "'RobertaProcessing'"));
  CHECK(has(with("/post_processor", nullptr), "no post_processor"));
  CHECK(has(with("/post_processor/single", json::array({special("[CLS]", 0)})),
            "single has sequence A 0 times"));
  CHECK(has(with("/post_processor/pair", json::array({sequence("C", 0)})), "the sequence 'C'"));
  CHECK(has(with("/post_processor/special_tokens", json::object()),
            "special_tokens.[CLS] is missing"));
  CHECK(has(with("/post_processor/special_tokens/[CLS]/ids", {70}), "a token of id 70"));
  CHECK(has(with("/post_processor/special_tokens/[CLS]/ids", {-1}), "no id"));
}

TEST_CASE("a damaged tokenizer.json is refused") {
  const auto with = [](const char* pointer, const json& value) {
    json tree = sample();
    tree[json::json_pointer(pointer)] = value;
    return refusal(tree);
  };
  SUBCASE("JSON") {
    CHECK(has(text_refusal(std::string_view{}), "t.json: line 1, column 1"));
    CHECK(has(text_refusal(sample().dump(1).substr(0, 300)), "save or download"));
    CHECK(has(text_refusal("[]"), "no JSON object"));
    CHECK(has(text_refusal("{\"a\": \"\xff\"}"), "line 1, column"));
    CHECK(has(text_refusal(std::string(200000, '[')), "deeper than 32"));
    CHECK(has(text_refusal(R"({"model": {}, "model": {}})"), "'model' is there twice"));
    CHECK(has(text_refusal(R"({"model": {"vocab": {}, "vocab": {}}})"), "'vocab' is there twice"));
    std::string list = "[0";
    for (int i = 0; i < 300000; ++i) {
      list += ",0";
    }
    CHECK(has(text_refusal("{\"x\": " + list + "]}"), "more than 200000 values"));
  }
  SUBCASE("vocabulary") {
    CHECK(has(text_refusal(R"({"model": {"vocab": {"a": 1, "b": 2, "a": 3}}})"), "has 'a' twice"));
    CHECK(has(with("/model/vocab/hello", 2), "the id 2 of the token"));
    CHECK(has(with("/model/vocab/hello", 2), "belongs to another token too"));
    CHECK(has(with("/model/vocab/hello", 2147483647), "has the id 2147483647, but there are 7"));
    CHECK(has(with("/model/vocab/hello", 4294967296), "'hello' the id '4294967296'"));
    CHECK(has(with("/model/vocab/hello", -1), "'hello' the id '-1'"));
    CHECK(has(with("/model/vocab/hello", 1.5), "'hello' the id '1.5'"));
    CHECK(has(with("/model/vocab/hello", "4"), "'hello' the id 'a string'"));
    CHECK(has(with("/model/vocab/hello", json::object()), "'hello' the id 'no number'"));
    CHECK(has(with("/model/vocab", json::array({1})), "model.vocab is missing"));
    CHECK(has(with("/model", json::array({sample()["model"]})), "model is no object"));
    CHECK(has(with("/model/unk_token", "<unk>"), "unknown token '<unk>'"));
    CHECK(has(with("/model/unk_token", 1), "model.unk_token is no string"));
    CHECK(has(with("/model/max_input_chars_per_word", -1), "no whole number"));
    json tree = sample();
    tree["model"]["vocab"].erase("[PAD]");
    tree["model"]["vocab"]["x"] = 0;
    CHECK(has(refusal(tree), "padding token '[PAD]' is not among its 7 tokens"));
    tree = sample();
    tree["model"]["vocab"].erase("hello");
    CHECK(has(refusal(tree), "has the id 6, but there are 6 tokens"));
  }
  SUBCASE("added tokens") {
    CHECK(has(with("/added_tokens/0/id", 2), "'[SEP]' has the id 2, the vocabulary gives it 3"));
    CHECK(has(with("/added_tokens/0/id", -2), "added_tokens.id"));
    CHECK(has(with("/added_tokens/0/content", ""), "id 3 is empty"));
    CHECK(has(with("/added_tokens/0/lstrip", "no"), "lstrip is neither true nor false"));
    CHECK(has(with("/added_tokens/1", {{"id", 3}, {"content", "[SEP]"}}), "listed twice"));
    CHECK(has(with("/added_tokens/1", {{"id", 9}, {"content", "new"}}), "has the id 9"));
    CHECK(has(with("/added_tokens/1", {{"id", 7}, {"content", "\u0301"}}), "is empty after"));
    CHECK(has(with("/added_tokens", 5), "no list"));
  }
}

TEST_CASE("vocab.txt") {
  CHECK(parse_vocab(kVocab, "v")->tokenize("HELLOs").ids == std::vector<int32_t>{5, 6});
  std::string windows;
  for (const char c : std::string_view(kVocab)) {
    windows += c == '\n' ? "\r\n" : std::string(1, c);
  }
  CHECK(parse_vocab(windows, "v")->tokenize("HELLOs[MASK]").ids == std::vector<int32_t>{5, 6, 4});
  const TokenizerConfig cased = parse_tokenizer_config(
      R"({"do_lower_case": false, "tokenizer_class": "BertTokenizer", "pad_token": null,
          "unk_token": {"content": "hello"},
          "added_tokens_decoder": {"8": {"content": "<x>", "special": true}}})",
      "c");
  CHECK(parse_vocab(kVocab, "v", cased)->tokenize("Hello y<x>").ids ==
        std::vector<int32_t>{7, 5, 8});
  const TokenizerConfig accents = parse_tokenizer_config(R"({"strip_accents": false})", "c");
  CHECK(parse_vocab(kVocab, "v", accents)->tokenize("h\u00e9llo").ids == std::vector<int32_t>{1});
  CHECK(parse_vocab(kVocab, "v")->tokenize("h\u00e9llo").ids == std::vector<int32_t>{5});
}

TEST_CASE("a damaged vocab.txt is refused with its line") {
  const std::string vocab = kVocab;
  CHECK(has(vocab_refusal(vocab + "hello\n"), "vocab.txt:9: the token 'hello' is on line 6"));
  CHECK(has(vocab_refusal(vocab + "\nlast\n"), "vocab.txt:9: the line is empty"));
  CHECK(has(vocab_refusal(vocab + "a\xffz\n"), "vocab.txt:9: byte 0xff is not UTF-8"));
  CHECK(has(vocab_refusal(vocab + std::string(5000, 'x')), "vocab.txt:9: a token of 5000 bytes"));
  CHECK(has(vocab_refusal("\xef\xbb\xbf" + vocab), "byte-order mark"));
  CHECK(has(vocab_refusal(""), "'[CLS]' is not among its 0 tokens"));
  for (const char* token : {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}) {
    std::string without = vocab;
    without.replace(without.find(token), 5, "other");
    CHECK(has(vocab_refusal(without), std::string("'") + token + "' is not among its 8 tokens"));
  }
  CHECK(has(vocab_refusal(vocab, R"({"tokenizer_class": "MPNetTokenizer"})"), "'MPNetTokenizer'"));
  CHECK(has(vocab_refusal(vocab, R"({"do_lower_case": "no"})"), "config: do_lower_case"));
  CHECK(has(vocab_refusal(vocab, R"({"added_tokens_decoder": {"x": {}}})"), "the id 'x'"));
  CHECK(has(vocab_refusal(vocab, R"({"added_tokens_decoder": {"9": {"content": "y"}}})"),
            "'y' has the id 9, but there are 9 tokens"));
  CHECK(has(vocab_refusal(vocab, "{"), "config: line 1"));
}

TEST_CASE("a folder, or a file of it") {
  const TempFolder folder;
  const auto refused = [](const std::filesystem::path& path) {
    return message_of<FileError>([&] { open_tokenizer(path); });
  };
  CHECK(has(refused(folder.path()), "neither tokenizer.json nor vocab.txt"));
  CHECK(has(refused(folder / "none.txt"), "none.txt: No such file"));
  CHECK(has(refused("/dev/zero"), "/dev/zero"));
  const auto vocab = folder.write("vocab.txt", kVocab);
  CHECK(open_tokenizer(folder.path())->tokenize("Hello").ids == std::vector<int32_t>{5});
  folder.write("tokenizer_config.json", R"({"do_lower_case": false})");
  CHECK(open_tokenizer(folder.path())->tokenize("Hello").ids == std::vector<int32_t>{7});
  CHECK(open_tokenizer(vocab)->tokenize("Hello").ids == std::vector<int32_t>{7});
  folder.write("added_tokens.json", "{}");
  CHECK(has(refused(vocab), "added_tokens.json lies beside it"));
  const auto file = folder.write("tokenizer.json", sample().dump());
  CHECK(open_tokenizer(folder.path())->tokenize("Hello").ids == std::vector<int32_t>{6});
  CHECK(open_tokenizer(file)->vocabulary_size() == 7);
  folder.write("tokenizer_config.json", "[1]");
  CHECK(has(refused(file), "tokenizer_config.json: is no JSON object"));
}

TEST_CASE("a word of any length takes time in proportion") {
  json tree = sample();
  tree["model"]["max_input_chars_per_word"] = 2000000000;
  const auto tokenizer = parse_tokenizer_json(tree.dump(), "t.json");
  std::string word = "hello";
  for (int i = 0; i < 500000; ++i) {
    word += 's';
  }
  CHECK(tokenizer->tokenize(word).ids.size() == 500001);
}

}  // namespace
}  // namespace lithe
