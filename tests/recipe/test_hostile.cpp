// Text that means harm: every one ends in a refusal, soon, with the stack and the memory it had.
#include <doctest/doctest.h>

#include <chrono>
#include <random>

#include "sample.h"

namespace lithe::recipe {
namespace {

std::string repeated(const std::string& part, size_t times) {
  std::string text;
  for (size_t i = 0; i < times; ++i) {
    text += part;
  }
  return text;
}

}  // namespace

TEST_CASE("anchors and aliases are refused") {
  check_text_refused("name: &a x\nseed: 1\n", {"vit.yaml:1", "'&a'", "refused"});
  check_text_refused("name: *a\n", {"vit.yaml:1"});
  check_text_refused("\nfreeze: &f\n  layers: *f\n", {"vit.yaml:2", "refused"});
  std::string laughs = "a0: &a0 [x, x]\n";
  for (int i = 1; i < 40; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before + ", " + before +
              "]\n";
  }
  check_text_refused(laughs, {"vit.yaml:1", "'&a0'"});
}

TEST_CASE("tags are refused") {
  check_text_refused("seed: !!int 3\n", {"vit.yaml:1", "tag"});
  check_text_refused("seed: !thing {a: 1}\n", {"vit.yaml:1", "tag"});
}

TEST_CASE("nesting stops at 32") {
  const auto nested = [](size_t levels) {
    // The top-level mapping is level 1.
    return "x: " + std::string(levels - 1, '[') + std::string(levels - 1, ']') + "\n";
  };
  check_text_refused(nested(32), {"unknown key 'x'"});
  check_text_refused(nested(33), {"vit.yaml:1", "nested deeper than 32"});
  const size_t most = (size_t{1} << 20) - 8;
  check_text_refused(nested(300), {"nested deeper than 32"});
  check_text_refused(repeated("- ", most / 2), {"nested deeper than 32"});
  // The parser below takes an open bracket for the start of a key here; refused all the same.
  for (const char* part : {"[", "{", "[{a: ", "? ", "?\n", "[]", "{[", "x: [", "- [", "!a ["}) {
    INFO(part);
    check_text_refused(repeated(part, most / std::string(part).size()), {"vit.yaml:"});
  }
  check_text_refused(nested(most / 2), {"vit.yaml:1"});
  std::string blocks;
  for (size_t i = 0; i < 100; ++i) {
    blocks += std::string(i, ' ') + "a:\n";
  }
  check_text_refused(blocks, {"vit.yaml:33", "nested deeper than 32"});
  check_text_refused("", {"nested deeper than 32"},
                     {"name=" + std::string(300, '[') + std::string(300, ']')});
}

TEST_CASE("control characters, NUL and bytes that are not UTF-8 are refused with their line") {
  check_text_refused(std::string("name: x\nseed: 1\0\n", 17), {"vit.yaml:2", "0x00"});
  check_text_refused("name: x\x04\nseed: broken\n", {"vit.yaml:1", "0x04"});
  check_text_refused("name: \"a\\0b\"\n", {"vit.yaml:1", "NUL"});
  check_text_refused("name: \"a\\x00b\"\n", {"vit.yaml:1", "NUL"});
  for (const char* bytes : {"\xff", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                            "\xe0\x80\xaf", "\x80", "\xf0\x9f\x99"}) {
    check_text_refused(std::string("seed: 1\nname: ") + bytes + "\n", {"vit.yaml:2", "UTF-8"});
  }
  CHECK(parse("\xef\xbb\xbfname: é\r\nseed: 2\r\n").string("name") == "é");
}

TEST_CASE("size and number of values are bounded") {
  const std::string comment(size_t{1} << 20, '#');
  CHECK(parse(comment).integer("seed") == 17);
  check_refused(3, {"vit.yaml", "1048577"}, [&] { parse(comment + "#"); });
  check_text_refused("optimizer: {no_decay: [" + repeated("a,", 200000) + "]}", {"100000 values"});
  std::string keys;
  for (int i = 0; i < 40000; ++i) {
    keys += "k" + std::to_string(i) + ": 1\n";
  }
  check_text_refused(keys, {"unknown key 'k0'"});
  const Refusal refused = refusal([] { parse("? " + std::string(500000, 'k') + "\n: 1\n"); });
  CHECK(refused.code == 2);
  CHECK(refused.message.size() < 500);
}

TEST_CASE("no text takes more than a moment") {
  const size_t most = size_t{1} << 20;
  const std::vector<std::string> texts = {std::string(most, ' '),
                                          std::string(most, '\n'),
                                          std::string(most, ':'),
                                          std::string(most, '"'),
                                          std::string(most, '\''),
                                          std::string(most, '!'),
                                          std::string(most, '%'),
                                          repeated("a: ", most / 3),
                                          repeated("---\n", most / 4),
                                          repeated("${", most / 2),
                                          repeated("a\n", most / 2),
                                          repeated("'a' ", most / 4),
                                          "name: '" + repeated("${", most / 2 - 8) + "'",
                                          "name: '" + repeated("${A:-", most / 5 - 8) + "'",
                                          "name: " + std::string(most - 8, 'x')};
  for (const std::string& text : texts) {
    INFO(text.substr(0, 20));
    const auto start = std::chrono::steady_clock::now();
    refusal([&] { parse(text); });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    CHECK(seconds.count() < 5.0);
  }
}

TEST_CASE("mutated recipes parse or are refused, nothing else, and what parses resolves stably") {
  const std::string seed_text =
      "# a recipe\nname: \"run \\x41\"\nseed: 3\noptimizer:\n  kind: sgd\n  lr: 1e-3\n  betas: "
      "[0.9, "
      "0.99]\n  no_decay:\n    - bias\n    - 'norm.*'\ndata: {shuffle: yes, path: /x/y}\nfreeze:\n "
      " "
      "layers: |\n    0-8\n  schedule: on\n";
  const std::string alphabet = ":-[]{},'\"\\#&*!|>%@`?~ \n\t\r0a.$=<";
  std::mt19937 random(11);
  int parsed = 0;
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text = seed_text;
    const unsigned edits = 1 + random() % 2;
    for (unsigned edit = 0; edit < edits && !text.empty(); ++edit) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        case 2:
          text.erase(at, 1 + random() % 8);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 24));
          break;
      }
    }
    INFO(text);
    try {
      const Recipe recipe = parse(text);
      CHECK(parse(recipe.resolved()).resolved() == recipe.resolved());
      ++parsed;
    } catch (const UsageError& error) {
      CHECK(std::string(error.what()).find("vit.yaml") != std::string::npos);
      ++refused;
    }
  }
  CHECK(parsed > 400);
  CHECK(refused > 400);
}

}  // namespace lithe::recipe
