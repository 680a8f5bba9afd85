#include <doctest/doctest.h>

#include <limits>
#include <sstream>

#include "recipe/nearest.h"
#include "sample.h"

namespace lithe::recipe {

TEST_CASE("edit distance counts inserts, deletes, replacements and swaps") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("lr", "rl") == 1);
  CHECK(edit_distance("optimzier", "optimizer") == 1);
  CHECK(edit_distance("LR", "lr") == 0);
  CHECK(edit_distance(std::string(1000, 'a'), "a") == std::numeric_limits<size_t>::max());
}

TEST_CASE("schema looks up options and sections, in the order added") {
  const Schema schema = sample_schema();
  REQUIRE(schema.find("freeze.layers"));
  CHECK(schema.find("freeze.layers")->required);
  CHECK(schema.find("freeze") == nullptr);
  REQUIRE(schema.find_section("freeze"));
  CHECK(schema.find_section("freeze")->optional);
  REQUIRE(schema.find_section("freeze.schedule"));
  CHECK(schema.find_section("freeze.schedule")->optional);
  CHECK(schema.find_section("freeze.schedule")->help == "how freezing changes");
  REQUIRE(schema.find_section("optimizer"));
  CHECK(!schema.find_section("optimizer")->optional);
  CHECK(schema.children("") ==
        std::vector<std::string>{"name", "seed", "optimizer", "data", "freeze"});
  CHECK(schema.children("data") == std::vector<std::string>{"data.shuffle", "data.path"});
  CHECK(schema.children("nowhere").empty());
}

TEST_CASE("deep sections keep their order and their flags") {
  Schema inner;
  inner.add({.key = "x.y.z", .type = Type::integer, .fallback = 1});
  Schema schema;
  schema.section("a.b", inner, "help of a.b", true);
  std::vector<std::string> keys;
  for (const Section& section : schema.sections()) {
    keys.push_back(section.key);
    CHECK(schema.find_section(section.key)->key == section.key);
    CHECK(section.optional == (section.key == "a.b"));
  }
  CHECK(keys == std::vector<std::string>{"a", "a.b", "a.b.x", "a.b.x.y"});
  CHECK(schema.children("a.b.x") == std::vector<std::string>{"a.b.x.y"});
}

TEST_CASE("nearest looks at the same level first, then at full keys, then elsewhere") {
  const Schema schema = sample_schema();
  CHECK(schema.nearest("optimizer.lrr") == "optimizer.lr");
  CHECK(schema.nearest("optimiser.lr") == "optimizer.lr");
  CHECK(schema.nearest("optimiser") == "optimizer");
  CHECK(schema.nearest("sead") == "seed");
  CHECK(schema.nearest("lr") == "optimizer.lr");
  CHECK(schema.nearest("betas") == "optimizer.betas");
  CHECK(schema.nearest("optimizer.zzzzzz") == "");
  CHECK(schema.nearest("quantize") == "");
  CHECK(schema.nearest(std::string(100000, 'l')) == "");
}

TEST_CASE("a schema refuses options that contradict themselves") {
  const auto refused = [](const Option& option, const std::string& part) {
    check_refused(2, {part}, [&] { Schema().add(option); });
  };
  refused({.key = ""}, "key ''");
  refused({.key = "a..b"}, "a..b");
  refused({.key = ".a"}, ".a");
  refused({.key = "a."}, "a.");
  refused({.key = "a b"}, "a b");
  refused({.key = "base"}, "'base'");
  refused({.key = "base.x"}, "'base'");
  refused({.key = "n", .type = Type::integer, .fallback = 1.5}, "not a finite integer");
  refused({.key = "n", .type = Type::integer, .fallback = "1"}, "not a finite integer");
  refused({.key = "n", .type = Type::number, .fallback = std::numeric_limits<double>::infinity()},
          "not a finite number");
  refused({.key = "n", .type = Type::boolean, .fallback = 1}, "boolean");
  refused({.key = "n", .type = Type::integer, .fallback = 9, .max = 8}, "9 is above");
  refused({.key = "n", .type = Type::string, .fallback = "c", .choices = {"a", "b"}}, "a, b");
  refused({.key = "n", .type = Type::integer, .fallback = 1, .required = true}, "required");
  Schema schema = sample_schema();
  check_refused(2, {"'seed'", "twice"}, [&] { schema.add({.key = "seed"}); });
  check_refused(2, {"'optimizer'", "twice"}, [&] { schema.add({.key = "optimizer"}); });
  check_refused(2, {"'seed'", "option"}, [&] { schema.add({.key = "seed.x"}); });
  check_refused(2, {"'freeze'", "twice"},
                [&] { schema.section("freeze", Schema(), "again", true); });
}

TEST_CASE("defaults are taken as YAML is: integers as numbers, scalars as lists of one") {
  Schema schema;
  schema.add({.key = "a", .type = Type::number, .fallback = 2});
  schema.add({.key = "b", .type = Type::number_list, .fallback = 2});
  schema.add({.key = "c", .type = Type::string_list, .fallback = "x"});
  const Recipe recipe = Recipe::parse("", "r", schema);
  CHECK(recipe.number("a") == 2.0);
  CHECK(recipe.numbers("b") == std::vector<double>{2.0});
  CHECK(recipe.strings("c") == std::vector<std::string>{"x"});
}

TEST_CASE("help lists every key in aligned columns") {
  const Schema schema = sample_schema();
  const std::string help = schema.help();
  size_t type_column = 0;
  for (const Option& option : schema.options()) {
    INFO(option.key);
    const size_t at = help.find("  " + option.key + " ");
    REQUIRE(at != std::string::npos);
    const std::string line = help.substr(at, help.find('\n', at) - at);
    const size_t type_at = line.find(std::string(type_name(option.type)), 2 + option.key.size());
    type_column = type_column == 0 ? type_at : type_column;
    CHECK(type_at == type_column);
    CHECK(line.find(option.help) != std::string::npos);
  }
  for (const char* part : {"0.001", "0 to 1", "adamw, sgd", "required", "[0.9, 0.999]",
                           "at least 1", "freeze (optional, off by default): keep layers"}) {
    INFO(part);
    CHECK(help.find(part) != std::string::npos);
  }
}

TEST_CASE("markdown is one table with five cells a row") {
  Schema schema = sample_schema();
  schema.add({.key = "odd", .help = "this | that\nand more"});
  std::istringstream lines(schema.markdown());
  std::string line;
  size_t rows = 0;
  while (std::getline(lines, line)) {
    INFO(line);
    size_t bars = 0;
    for (size_t i = 0; i < line.size(); ++i) {
      bars += line[i] == '|' && (i == 0 || line[i - 1] != '\\') ? 1 : 0;
    }
    CHECK(bars == 6);
    ++rows;
  }
  CHECK(rows == 2 + schema.options().size() + 2);  // head, options, two sections with help
  CHECK(schema.markdown().find("| `optimizer.lr` | number | 0.001 | 0 to 1 | learning rate |") !=
        std::string::npos);
}

}  // namespace lithe::recipe
