#include <doctest/doctest.h>

#include "sample.h"

namespace lithe::recipe {

TEST_CASE("an unknown key is refused with file, line and the nearest known key") {
  check_text_refused("name: x\noptimizer:\n  kind: sgd\n  lrr: 1\n",
                     {"vit.yaml:4: unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?"});
  check_text_refused("\n\noptimiser: {lr: 1}\n",
                     {"vit.yaml:3: unknown key 'optimiser'; did you mean 'optimizer'?"});
  check_text_refused("lr: 1\n", {"vit.yaml:1: unknown key 'lr'; did you mean 'optimizer.lr'?"});
  check_text_refused("data:\n  wibble: 1\n",
                     {"vit.yaml:2: unknown key 'data.wibble'", "data.shuffle, data.path"});
  check_text_refused("<<: {lr: 1}\n", {"vit.yaml:1", "'<<'"});
  check_text_refused("optimizer.lr: 1\n", {"vit.yaml:1", "'optimizer.lr'", "nested"});
  check_text_refused("freeze: {layers: 1, schedule: {warmpu: 1}}\n",
                     {"did you mean 'freeze.schedule.warmup'?"});
}

TEST_CASE("overrides are refused in their own words") {
  check_text_refused("",
                     {"command line: optimizer.lrr=1: unknown key 'optimizer.lrr'; did you mean "
                      "'optimizer.lr'?"},
                     {"optimizer.lrr=1"});
  check_text_refused("",
                     {"command line: optimiser.lr=1: unknown key 'optimiser.lr'; did you mean "
                      "'optimizer.lr'?"},
                     {"optimiser.lr=1"});
  check_text_refused("", {"command line: seed=x: key 'seed'", "'x'", "integer"}, {"seed=x"});
  check_text_refused("", {"command line: seed", "key.path=value"}, {"seed"});
  check_text_refused("", {"key.path=value"}, {"=1"});
  check_text_refused("", {"key.path=value"}, {""});
  check_text_refused("", {"command line: seed=[1"}, {"seed=[1"});
  check_text_refused("", {"command line: name=&bias", "quote"}, {"name=&bias"});
  check_text_refused("", {"command line: seed=", "no value", "integer"}, {"seed="});
  check_text_refused("", {"command line: seed.x=1", "'seed'", "not a section"}, {"seed.x=1"});
  check_text_refused("", {"command line: base=x", "'base'"}, {"base=x"});
  check_text_refused("", {"unknown key 'optimizer.'"}, {"optimizer.=1"});
}

TEST_CASE("a wrong type says what was found and what is wanted") {
  const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
    check_text_refused("# first line\n" + text, parts);
  };
  refused("seed: abc\n", {"vit.yaml:2: key 'seed': found the text 'abc', wanted an integer"});
  refused("seed: 1e3\n", {"'1e3'", "integer"});
  refused("seed: 1.0\n", {"'1.0'", "integer"});
  refused("seed: 0x10\n", {"'0x10'", "integer"});
  refused("seed: '3'\n", {"the quoted text '3'", "integer"});
  refused("seed: +-3\n", {"'+-3'", "integer"});
  refused("seed: 9223372036854775808\n", {"vit.yaml:2", "'seed'", "64 bits"});
  refused("seed: [1]\n", {"a list of 1", "integer"});
  refused("seed: {a: 1}\n", {"a mapping", "integer"});
  refused("seed:\n", {"vit.yaml:2", "'seed'", "no value", "17"});
  refused("seed: ~\nname: x\n", {"vit.yaml:2", "'seed'", "no value"});
  refused("name: [a]\n", {"a list of 1", "string"});
  refused("optimizer:\n  lr: fast\n",
          {"vit.yaml:3: key 'optimizer.lr': found the text 'fast', wanted a number (0 to 1)"});
  refused("optimizer:\n  lr: 1e-3x\n", {"'1e-3x'", "number"});
  for (const char* value : {".inf", "-.Inf", ".nan", "inf", "nan", "1e999", "-1e999"}) {
    refused(std::string("optimizer: {lr: ") + value + "}\n",
            {"vit.yaml:2", "'optimizer.lr'", value, "finite"});
  }
  refused("optimizer:\n  betas:\n    - 0.9\n    - x\n",
          {"vit.yaml:5: key 'optimizer.betas'", "'x'", "list of numbers"});
  refused("optimizer: {betas: [[1]]}\n", {"a list of 1 in the list"});
  refused("optimizer: {betas: [1, ~]}\n", {"no value in the list"});
  refused("optimizer: {no_decay: {a: b}}\n", {"a mapping", "list of strings"});
  refused("data: {shuffle: maybe}\n", {"'maybe'", "boolean"});
  refused("data: {shuffle: 1}\n", {"'1'", "boolean"});
  refused("data: {shuffle: 'on'}\n", {"quoted text 'on'", "boolean"});
}

TEST_CASE("a section where a scalar is wanted, and the reverse") {
  check_text_refused("name: {a: b}\n",
                     {"vit.yaml:1: key 'name': found a mapping, wanted a string"});
  check_text_refused(
      "\noptimizer: adamw\n",
      {"vit.yaml:2: 'optimizer' is a section: found the text 'adamw'", "optimizer.kind"});
  check_text_refused("optimizer: [1]\n", {"'optimizer' is a section", "a list of 1"});
  check_text_refused("optimizer: off\n", {"'optimizer' is a section", "'off'"});
  check_text_refused("freeze: 0-8\n", {"'freeze' is a section", "on or off", "freeze.layers"});
  check_text_refused("freeze: [a]\n", {"'freeze' is a section"});
  check_text_refused("freeze: 'off'\n", {"quoted text 'off'"});
  check_text_refused("- a\n- b\n", {"vit.yaml:1", "a list of 2", "mapping"});
  check_text_refused("just text\n", {"vit.yaml:1", "just text", "mapping"});
  CHECK(parse("optimizer:\n").number("optimizer.lr") == 1e-3);  // all its keys commented out
}

TEST_CASE("values out of range and bad choices") {
  check_text_refused("optimizer:\n  lr: 1.5\n",
                     {"vit.yaml:2: key 'optimizer.lr': 1.5 is above the greatest allowed value 1"});
  check_text_refused("optimizer: {lr: -1e-9}\n", {"-1e-09 is below the least allowed value 0"});
  check_text_refused("optimizer: {betas: [0.9, 2]}\n", {"'optimizer.betas'", "2 is above"});
  check_text_refused("freeze: {layers: a, every: 0}\n", {"0 is below the least allowed value 1"});
  check_text_refused("optimizer:\n  kind: adam\n",
                     {"vit.yaml:2: key 'optimizer.kind': 'adam' is not one of adamw, sgd; did you "
                      "mean 'adamw'?"});
  check_text_refused("optimizer: {kind: lion}\n", {"'lion' is not one of adamw, sgd"});
  Schema schema;
  schema.add({.key = "bits", .type = Type::integer, .fallback = 8, .choices = {"4", "8"}});
  schema.add({.key = "big", .type = Type::integer, .fallback = 0, .max = 9007199254740992.0});
  check_refused(2, {"'5' is not one of 4, 8"}, [&] { Recipe::parse("bits: 5", "r", schema); });
  CHECK(Recipe::parse("bits: 4", "r", schema).integer("bits") == 4);
  check_refused(2, {"9007199254740993 is above"},
                [&] { Recipe::parse("big: 9007199254740993", "r", schema); });
}

TEST_CASE("a missing required key is named where its section stands") {
  check_text_refused("name: x\nfreeze:\n  every: 2\n",
                     {"vit.yaml:2: missing key 'freeze.layers' (string): layer range"});
  check_text_refused("freeze: on\n", {"vit.yaml:1: missing key 'freeze.layers'"});
  check_text_refused("", {"command line: freeze=on: missing key 'freeze.layers'"}, {"freeze=on"});
  check_text_refused("freeze: {layers: ~}\n", {"'freeze.layers'", "no value"});
  Schema schema;
  schema.add({.key = "model.kind", .type = Type::string, .required = true});
  check_refused(2, {"r.yaml: missing key 'model.kind'"},
                [&] { Recipe::parse("", "r.yaml", schema); });
}

TEST_CASE("duplicate keys are refused in every mapping") {
  check_text_refused("seed: 1\nname: x\nseed: 2\n", {"vit.yaml:3", "'seed'", "twice", "line 1"});
  check_text_refused("optimizer:\n  lr: 1\n  'lr': 1\n", {"vit.yaml:3", "'lr'", "twice"});
  check_text_refused("optimizer: {lr: 1}\noptimizer: {kind: sgd}\n", {"vit.yaml:2", "'optimizer'"});
  check_text_refused("unknown: [{a: 1, a: 2}]\n", {"'a'", "twice"});
}

TEST_CASE("broken YAML is refused with its line") {
  check_text_refused("name: x\nseed: [1, 2\n", {"vit.yaml:", "not YAML"});
  check_text_refused("name: x\nseed: 'abc\n", {"vit.yaml:2", "not YAML", "not closed"});
  check_text_refused("name: x\nseed: \"abc", {"vit.yaml:2", "not YAML", "not closed"});
  check_text_refused("", {"command line: name='abc", "not closed"}, {"name='abc"});
  CHECK(parse("---\nname: x\n...\n").string("name") == "x");
  CHECK(parse("# nothing\n").string("name") == "run");
  CHECK(parse("---\n").string("name") == "run");
  check_text_refused("name: x\n  seed: 1\n", {"vit.yaml:2"});
  check_text_refused("name: x\n\tseed: 1\n", {"vit.yaml:2"});
  check_text_refused("name: \"\\q\"\n", {"vit.yaml:1", "not YAML"});
  check_text_refused("name: a\n---\nname: b\n", {"second document"});
  check_text_refused("? [a]\n: 1\n", {"vit.yaml:1", "key"});
  check_text_refused("~: 1\n", {"vit.yaml:1", "empty key"});
  check_text_refused("'': 1\n", {"vit.yaml:1", "empty key"});
}

}  // namespace lithe::recipe
