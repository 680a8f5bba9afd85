#include "recipe/recipe.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

#include "sample.h"

namespace lithe::recipe {

TEST_CASE("an empty path is no path") {
  const Schema schema = sample_schema();
  CHECK_FALSE(
      Recipe::parse("data: {path: \"${LITHE_UNSET_VARIABLE:-}\"}", "r", schema).has("data.path"));
  CHECK(Recipe::parse("data: {path: x}", "r", schema).has("data.path"));
}

TEST_CASE("values are given or default, and know where they come from") {
  const Recipe recipe = parse(
      "name: first\n"
      "optimizer:\n"
      "  lr: 3e-4\n"
      "  no_decay: [bias, 'norm.*']\n"
      "data: {shuffle: off, path: /tmp/x}\n");
  CHECK(recipe.string("name") == "first");
  CHECK(recipe.integer("seed") == 17);
  CHECK(recipe.number("optimizer.lr") == 3e-4);
  CHECK(recipe.number("seed") == 17.0);
  CHECK(recipe.numbers("optimizer.betas") == std::vector<double>{0.9, 0.999});
  CHECK(recipe.strings("optimizer.no_decay") == std::vector<std::string>{"bias", "norm.*"});
  CHECK(!recipe.boolean("data.shuffle"));
  CHECK(recipe.string("data.path") == "/tmp/x");
  CHECK(recipe.where("optimizer.lr") == "vit.yaml:3");
  CHECK(recipe.where("optimizer.no_decay") == "vit.yaml:4");
  CHECK(recipe.where("optimizer") == "vit.yaml:2");
  CHECK(recipe.where("seed") == "default");
  CHECK(recipe.has("seed"));
  CHECK(!recipe.given("seed"));
  CHECK(recipe.given("name"));
  CHECK(!parse("").has("data.path"));
}

TEST_CASE("scalars of each type read as the field expects") {
  for (const char* word : {"true", "on", "yes", "True", "ON"}) {
    CHECK(parse(std::string("data: {shuffle: ") + word + "}").boolean("data.shuffle"));
  }
  for (const char* word : {"false", "off", "no", "False", "NO"}) {
    CHECK(!parse(std::string("data: {shuffle: ") + word + "}").boolean("data.shuffle"));
  }
  CHECK(parse("seed: 9223372036854775807").integer("seed") == INT64_MAX);
  CHECK(parse("seed: -9223372036854775808").integer("seed") == INT64_MIN);
  CHECK(parse("seed: 9007199254740993").integer("seed") == 9007199254740993);
  CHECK(parse("seed: +5").integer("seed") == 5);
  CHECK(parse("optimizer: {lr: 1}").number("optimizer.lr") == 1.0);
  CHECK(parse("optimizer: {lr: .5}").number("optimizer.lr") == 0.5);
  CHECK(parse("optimizer: {lr: +1e-3}").number("optimizer.lr") == 1e-3);
  // The schema decides: what other schemas take for numbers or booleans is text here.
  CHECK(parse("name: 123").string("name") == "123");
  CHECK(parse("name: on").string("name") == "on");
  CHECK(parse("name: 'null'").string("name") == "null");
  CHECK(parse("name: ''").string("name") == "");
  CHECK(parse("name: |\n  two\n  lines\n").string("name") == "two\nlines\n");
}

TEST_CASE("a scalar where a list is wanted is a list of one") {
  CHECK(parse("optimizer: {betas: 0.5}").numbers("optimizer.betas") == std::vector<double>{0.5});
  CHECK(parse("optimizer: {no_decay: bias}").strings("optimizer.no_decay") ==
        std::vector<std::string>{"bias"});
  CHECK(parse("optimizer: {no_decay: []}").strings("optimizer.no_decay").empty());
}

TEST_CASE("an optional section is on when present and off when absent, null, off or false") {
  for (const char* text : {"", "freeze:", "freeze: null", "freeze: off", "freeze: false"}) {
    INFO(text);
    const Recipe recipe = parse(text);
    CHECK(!recipe.enabled("freeze"));
    CHECK(!recipe.enabled("freeze.schedule"));
    CHECK(!recipe.has("freeze.every"));
    CHECK(recipe.resolved().find("freeze") == std::string::npos);
    check_refused(2, {"freeze.every", "off"}, [&] { recipe.integer("freeze.every"); });
  }
  const Recipe recipe = parse("freeze: {layers: 0-8}");
  CHECK(recipe.enabled("freeze"));
  CHECK(recipe.enabled("optimizer"));
  CHECK(!recipe.enabled("freeze.schedule"));
  CHECK(recipe.string("freeze.layers") == "0-8");
  CHECK(recipe.integer("freeze.every") == 1);
  const Recipe nested = parse("freeze: {layers: 0-8, schedule: on}");
  CHECK(nested.enabled("freeze.schedule"));
  CHECK(nested.integer("freeze.schedule.warmup") == 10);
  CHECK(nested.where("freeze.schedule") == "vit.yaml:1");
}

TEST_CASE("overrides win, key by key, in order") {
  const Recipe recipe = parse("optimizer: {lr: 0.1, kind: sgd}\nfreeze: {layers: 0-8, every: 3}",
                              {"optimizer.lr=0.2", "optimizer.lr=3e-2", "name=a=b"});
  CHECK(recipe.number("optimizer.lr") == 3e-2);
  CHECK(recipe.string("optimizer.kind") == "sgd");
  CHECK(recipe.string("name") == "a=b");
  CHECK(recipe.where("optimizer.lr") == "command line: optimizer.lr=3e-2");

  CHECK(!parse("freeze: {layers: 0-8}", {"freeze=off"}).enabled("freeze"));
  CHECK(parse("", {"freeze.layers=0-4"}).string("freeze.layers") == "0-4");
  CHECK(parse("", {"freeze={layers: 0-4, every: 2}"}).integer("freeze.every") == 2);
  const Recipe merged = parse("freeze: {layers: 0-8, every: 3}", {"freeze={layers: 1}"});
  CHECK(merged.string("freeze.layers") == "1");
  CHECK(merged.integer("freeze.every") == 3);
  // Off forgets what the section held.
  const Recipe again =
      parse("freeze: {layers: 0-8, every: 3, schedule: on}", {"freeze=off", "freeze.layers=1"});
  CHECK(again.integer("freeze.every") == 1);
  CHECK(!again.enabled("freeze.schedule"));
  CHECK(parse("", {"optimizer.betas=[0.1, 0.2]"}).numbers("optimizer.betas") ==
        std::vector<double>{0.1, 0.2});
  // Null takes back the value of a key that may have none.
  CHECK(!parse("data: {path: /x}", {"data.path=null"}).has("data.path"));
}

TEST_CASE("strings and paths see the environment") {
  setenv("LITHE_TEST_DIR", "/data/set", 1);
  setenv("LITHE_TEST_EMPTY", "", 1);
  unsetenv("LITHE_TEST_NONE");
  const std::string home = std::getenv("HOME") ? std::getenv("HOME") : "";
  setenv("HOME", "/home/somebody", 1);
  const auto path = [](const std::string& value) {
    return parse("data:\n  path: '" + value + "'\n").string("data.path");
  };
  CHECK(path("${LITHE_TEST_DIR}/a") == "/data/set/a");
  CHECK(path("${LITHE_TEST_NONE:-/b}/c") == "/b/c");
  CHECK(path("${LITHE_TEST_EMPTY:-d}") == "d");
  CHECK(path("x${LITHE_TEST_EMPTY}y") == "xy");
  CHECK(path("${LITHE_TEST_NONE:-${LITHE_TEST_DIR}/e}") == "/data/set/e");
  CHECK(path("~/f") == "/home/somebody/f");
  CHECK(path("~") == "/home/somebody");
  CHECK(path("~other/f") == "~other/f");
  CHECK(path("a~/f") == "a~/f");
  CHECK(path("$LITHE_TEST_DIR") == "$LITHE_TEST_DIR");
  CHECK(path("$${LITHE_TEST_DIR}") == "${LITHE_TEST_DIR}");
  CHECK(path("relative/x") == "relative/x");
  CHECK(parse("optimizer: {no_decay: ['${LITHE_TEST_DIR}', b]}").strings("optimizer.no_decay") ==
        std::vector<std::string>{"/data/set", "b"});
  check_text_refused("data:\n  path: ${LITHE_TEST_NONE}/x\n",
                     {"vit.yaml:2", "data.path", "LITHE_TEST_NONE", "not set"});
  check_text_refused("name: ${LITHE_TEST_DIR\n", {"vit.yaml:1", "'name'", "without its '}'"});
  check_text_refused("name: ${a b}\n", {"vit.yaml:1", "'a b'"});
  std::string deep = "x";
  for (int i = 0; i < 100; ++i) {
    deep = "${LITHE_TEST_NONE:-" + deep + "}";
  }
  check_text_refused("name: '" + deep + "'\n", {"vit.yaml:1", "nested deeper"});
  setenv("LITHE_TEST_BAD", "\xff", 1);
  check_text_refused("name: ${LITHE_TEST_BAD}\n", {"LITHE_TEST_BAD", "UTF-8"});
  setenv("HOME", "relative", 1);
  check_text_refused("data: {path: ~/x}\n", {"HOME", "absolute"});
  // What a later file or override replaces needs no variable.
  CHECK(parse("name: ${LITHE_TEST_NONE}", {"name=b"}).string("name") == "b");
  setenv("HOME", home.c_str(), 1);
}

TEST_CASE("choices hold for what the environment makes of a text") {
  setenv("LITHE_TEST_KIND", "sgd", 1);
  CHECK(parse("optimizer: {kind: '${LITHE_TEST_KIND}'}").string("optimizer.kind") == "sgd");
  setenv("LITHE_TEST_KIND", "sgdd", 1);
  check_text_refused("optimizer: {kind: '${LITHE_TEST_KIND}'}", {"adamw, sgd", "mean 'sgd'"});
}

TEST_CASE("asking for what the schema does not have is named") {
  const Recipe recipe = parse("");
  check_refused(2, {"'optimizer.lrr'", "'optimizer.lr'"}, [&] { recipe.number("optimizer.lrr"); });
  check_refused(2, {"'sed'"}, [&] { recipe.has("sed"); });
  check_refused(2, {"'sed'"}, [&] { recipe.given("sed"); });
  check_refused(2, {"'sed'"}, [&] { recipe.where("sed"); });
  check_refused(2, {"'thaw'"}, [&] { recipe.enabled("thaw"); });
  check_refused(2, {"'thaw'"}, [&] { recipe.section("thaw"); });
  check_refused(2, {"'seed'"}, [&] { recipe.enabled("seed"); });
  check_refused(2, {"'seed'", "string", "integer"}, [&] { recipe.string("seed"); });
  check_refused(2, {"'optimizer.lr'", "integer"}, [&] { recipe.integer("optimizer.lr"); });
  check_refused(2, {"'name'", "boolean"}, [&] { recipe.boolean("name"); });
  check_refused(2, {"'name'", "number"}, [&] { recipe.number("name"); });
  check_refused(2, {"'name'", "list of strings"}, [&] { recipe.strings("name"); });
  check_refused(2, {"'name'", "list of numbers"}, [&] { recipe.numbers("name"); });
  check_refused(2, {"'data.path'", "no value"}, [&] { recipe.string("data.path"); });
}

TEST_CASE("a section sees its own keys") {
  const Recipe recipe = parse("freeze:\n  layers: 0-8\n  schedule:\n    warmup: 4\n");
  const Recipe freeze = recipe.section("freeze");
  CHECK(freeze.string("layers") == "0-8");
  CHECK(freeze.enabled("schedule"));
  CHECK(freeze.section("schedule").integer("warmup") == 4);
  CHECK(freeze.where("layers") == "vit.yaml:2");
  CHECK(freeze.resolved() == "layers: \"0-8\"\nevery: 1\nschedule:\n  warmup: 4\n");
  check_refused(2, {"'freeze.seed'"}, [&] { freeze.integer("seed"); });
}

TEST_CASE("the resolved recipe lists every value in the schema's order") {
  CHECK(parse("freeze: {layers: all}\nseed: 3").resolved() ==
        "name: run\n"
        "seed: 3\n"
        "optimizer:\n"
        "  kind: adamw\n"
        "  lr: 0.001\n"
        "  betas: [0.9, 0.999]\n"
        "data:\n"
        "  shuffle: true\n"
        "freeze:\n"
        "  layers: all\n"
        "  every: 1\n");
  Schema empty_pass;
  empty_pass.section("noop", Schema(), "does nothing", true);
  CHECK(Recipe::parse("noop: on", "r", empty_pass).resolved() == "noop: on\n");
  CHECK(Recipe::parse("noop: on", "r", empty_pass).enabled("noop"));
  CHECK(Recipe::parse("", "r", empty_pass).resolved().empty());
}

TEST_CASE("a resolved recipe gives the same values again") {
  setenv("LITHE_TEST_ODD", "${HOME} ~/x $${a}", 1);
  const std::vector<std::string> texts = {"plain",
                                          "",
                                          " ",
                                          "null",
                                          "~x",
                                          "true",
                                          "Off",
                                          "1",
                                          "-1.5",
                                          ".inf",
                                          "1e3",
                                          "0-8",
                                          "a: b",
                                          "# no",
                                          "a #b",
                                          "- x",
                                          "'q'",
                                          "\"q\"",
                                          "back\\slash",
                                          "tab\there",
                                          "two\nlines\n",
                                          "\r",
                                          "\x01",
                                          "\x04",
                                          "\x7f",
                                          "[a, b]",
                                          "{a}",
                                          "&a",
                                          "*a",
                                          "!t",
                                          "%d",
                                          "@x",
                                          "`x",
                                          "$",
                                          "$$",
                                          "$x",
                                          "${",
                                          "$${",
                                          "$$${",
                                          "${A:-b}",
                                          "é",
                                          "\xc2\x85",
                                          "\xe2\x80\xa8",
                                          "\xef\xbb\xbf",
                                          "\xf0\x9f\x99\x82",
                                          "a,b",
                                          "---",
                                          "...",
                                          "? x",
                                          "a/b.c-d_e+f",
                                          "=",
                                          "<<",
                                          std::string(5000, 'y')};
  Schema schema;
  schema.add({.key = "text", .type = Type::string});
  schema.add({.key = "texts", .type = Type::string_list, .fallback = texts});
  const auto literal = [](std::string text) {  // a default that expands to `text`
    for (size_t at = 0; (at = text.find("${", at)) != std::string::npos; at += 3) {
      text.insert(at, "$");
    }
    return text;
  };
  for (const std::string& text : texts) {
    INFO(text);
    Schema one;
    one.add({.key = "a.text", .type = Type::string, .fallback = literal(text)});
    one.add({.key = "a.texts",
             .type = Type::string_list,
             .fallback = std::vector<std::string>{literal(text), literal(text)}});
    const Recipe first = Recipe::parse("", "r", one);
    CHECK(first.string("a.text") == text);
    const Recipe second = Recipe::parse(first.resolved(), "r2", one);
    CHECK(second.string("a.text") == text);
    CHECK(second.given("a.text"));
    CHECK(second.strings("a.texts") == std::vector<std::string>{text, text});
    CHECK(second.resolved() == first.resolved());
  }
  const Recipe odd = parse("name: ${LITHE_TEST_ODD}");
  CHECK(odd.string("name") == "${HOME} ~/x $${a}");
  CHECK(parse(odd.resolved()).string("name") == odd.string("name"));
}

TEST_CASE("doubles survive the resolved recipe bit for bit and read as numbers everywhere") {
  std::mt19937_64 random(3);
  std::vector<double> values = {0.0,    -0.0, 1.0,        1e-5,
                                1e20,   0.1,  5e-324,     std::numeric_limits<double>::max(),
                                -1e300, 1e16, 123456789.0};
  while (values.size() < 2000) {
    const double value = std::bit_cast<double>(random());
    if (std::isfinite(value)) {
      values.push_back(value);
    }
  }
  Schema schema;
  schema.add({.key = "values", .type = Type::number_list, .fallback = values});
  schema.add({.key = "small", .type = Type::number, .fallback = 1e-5});
  const std::string text = Recipe::parse("", "r", schema).resolved();
  CHECK(text.find("small: 1.0e-05\n") != std::string::npos);
  const std::vector<double> read = Recipe::parse(text, "r", schema).numbers("values");
  REQUIRE(read.size() == values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    CHECK(std::bit_cast<uint64_t>(read[i]) == std::bit_cast<uint64_t>(values[i]));
  }
}

TEST_CASE("a pattern on the command line needs no quotes") {
  Schema schema;
  schema.add({.key = "patterns", .type = Type::string_list});
  const std::vector<std::string> overrides = {"patterns=*.query.weight"};
  const Recipe recipe = Recipe::parse("", "r.yaml", schema, overrides);
  CHECK(recipe.strings("patterns") == std::vector<std::string>{"*.query.weight"});
}

}  // namespace lithe::recipe
