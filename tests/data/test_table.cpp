// TSV, CSV and JSON lines: what is read, and what is refused with which sentence.
#include <doctest/doctest.h>

#include "../io/temp_folder.h"
#include "data/table.h"
#include "data/text_examples.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

using Rows = std::vector<std::vector<std::string>>;

TableOptions as(TableFormat format) {
  TableOptions options;
  options.format = format;
  return options;
}
const TableOptions kTsv = as(TableFormat::tsv);
const TableOptions kCsv = as(TableFormat::csv);
const TableOptions kJsonl = as(TableFormat::jsonl);

Rows rows_of(const Table& table) {
  Rows out;
  for (int64_t row = 0; row < table.rows(); ++row) {
    out.emplace_back();
    for (size_t column = 0; column < table.columns().size(); ++column) {
      out.back().emplace_back(table.cell(row, static_cast<int64_t>(column)));
    }
  }
  return out;
}

Rows rows_of(std::string_view text, const TableOptions& options) {
  return rows_of(parse_table(std::string(text), options, "t"));
}

std::string refusal(std::string_view text, const TableOptions& options) {
  return message_of<FileError>([&] { parse_table(std::string(text), options, "t"); });
}

TEST_CASE("table: tsv has no quoting, and line ends of either kind") {
  const Rows wanted = {{"\"a", "1"}, {"b \"c\" ", ""}, {"", "2"}};
  for (const std::string_view text : {
           "text\tlabel\n\"a\t1\nb \"c\" \t\n\t2\n",
           "text\tlabel\n\"a\t1\nb \"c\" \t\n\t2",
           "text\tlabel\r\n\"a\t1\r\nb \"c\" \t\r\n\t2\r\n",
           "\xEF\xBB\xBFtext\tlabel\n\n\"a\t1\n\r\nb \"c\" \t\n\t2\n\n",
       }) {
    CAPTURE(text);
    const Table table = parse_table(std::string(text), kTsv, "t");
    CHECK(table.columns() == std::vector<std::string>{"text", "label"});
    CHECK(rows_of(table) == wanted);
    CHECK(table.column("label") == 1);
  }
  TableOptions bare = kTsv;
  bare.header = false;
  const Table table = parse_table("x\ty\nz\t\n", bare, "t");
  CHECK(table.columns() == std::vector<std::string>{"0", "1"});
  CHECK(rows_of(table) == Rows{{"x", "y"}, {"z", ""}});
  CHECK(rows_of("one\nword\r\r\n", kTsv) == Rows{{"word\r"}});  // only the last CR ends the line
  CHECK(rows_of("é\nü 東京 😀", kTsv) == Rows{{"ü 東京 😀"}});
}

TEST_CASE("table: csv follows RFC 4180") {
  CHECK(rows_of("a,b\n1,2\n", kCsv) == Rows{{"1", "2"}});
  CHECK(rows_of("a,b\r\n\"1,\"\"x\"\"\r\n2\",\r\n,\"\"\r\n", kCsv) ==
        Rows{{"1,\"x\"\r\n2", ""}, {"", ""}});
  CHECK(rows_of("\xEF\xBB\xBF\"a,\",b\n\n5\" disk,\"\"\"\"", kCsv) == Rows{{"5\" disk", "\""}});
  CHECK(parse_table("\"a,\",b\n1,2", kCsv, "t").columns()[0] == "a,");
  CHECK(rows_of("a\n\"\"\n\"x\"\n", kCsv) == Rows{{""}, {"x"}});
  CHECK(rows_of("a,b\nx,", kCsv) == Rows{{"x", ""}});
  CHECK(rows_of("a,b\nx,\"y\"", kCsv) == Rows{{"x", "y"}});
  CHECK(rows_of("a,b\nx\ry,z\r", kCsv) == Rows{{"x\ry", "z"}});
  CHECK(rows_of("a\nx\n\r\ny\r", kCsv) == Rows{{"x"}, {"y"}});
  // Lines are those of the file, whatever the quotes hold.
  const Table table = parse_table("a,b\n\"1\n\n2\",3\n\n4,5\n6,7\n", kCsv, "t");
  CHECK(table.line(0) == 2);
  CHECK(table.line(1) == 6);
  CHECK(table.line(2) == 7);
}

TEST_CASE("table: json lines") {
  const Table table = parse_table(
      "{\"text\": \"a\\tb\\n\\u00e9\\ud83d\\ude00\", \"label\": 1, \"x\": {\"deep\": [1, {}]}}\n\n"
      "{\"label\": -2.50, \"more\": [[\"x\"]], \"x\": null, \"text\": null}\r\n"
      "{\"label\": true, \"x\": 18446744073709551615, \"text\": \"\"}",
      kJsonl, "t");
  CHECK(table.columns() == std::vector<std::string>{"text", "label", "x"});
  CHECK(rows_of(table) ==
        Rows{{"a\tb\né😀", "1", ""}, {"", "-2.50", ""}, {"", "true", "18446744073709551615"}});
  CHECK(table.line(1) == 3);
  CHECK(has(message_of<FileError>([&] { table.column("x"); }), "t:1: 'x' is an array or object"));
  CHECK(rows_of("{\"a\":{\"a\":1}}\n{\"a\":2}", kJsonl) == Rows{{""}, {"2"}});  // only the top keys
  CHECK(rows_of("\xEF\xBB\xBF{\"a\":0}", kJsonl) == Rows{{"0"}});
}

TEST_CASE("table: what the text gets wrong is named with its line") {
  const std::string deep(100, '[');
  CHECK(has(refusal("", kTsv), "[table] t: is empty"));
  CHECK(has(refusal("\n\r\n\n", kTsv), "t: is empty"));
  CHECK(has(refusal("\xEF\xBB\xBF", kCsv), "t: is empty"));
  CHECK(has(refusal("a\tb\n", kTsv), "has a header and no rows"));
  CHECK(has(refusal("a\tb\n1\t2\n\n3\n", kTsv), "t:4: 1 columns, the header has 2"));
  CHECK(has(refusal("a\tb\n1\t2\t3\n", kTsv), "t:2: 3 columns, the header has 2"));
  CHECK(has(refusal("a,b\n\"1\n\",2\n3,4,5\n", kCsv), "t:4: 3 columns"));
  CHECK(has(refusal("a,b\n\"1\n2,3\n4,5\n", kCsv), "t:2: column 1 opens a quote"));
  CHECK(has(refusal("a,b\n1,\"", kCsv), "t:2: column 2 opens a quote"));
  CHECK(has(refusal("a,b\n1,\"2\"x\n", kCsv), "t:2: column 2 goes on after its closing quote"));
  CHECK(has(refusal({"a\tb\n1\t\0\n", 8}, kTsv), "t:2: holds a NUL byte"));
  CHECK(has(refusal("a\tb\n1\t2\n1\t\xE9\n", kTsv), "t:3: byte 0xe9 is not UTF-8"));
  CHECK(has(refusal("a\n\xED\xA0\x80\n", kTsv), "t:2: byte 0xed"));  // a surrogate
  CHECK(has(refusal("a\n\xC0\x80\n", kTsv), "t:2: byte 0xc0"));      // overlong
  CHECK(has(refusal("a\nx\xF0\x9F\x98", kTsv), "t:2: byte 0xf0"));   // cut
  CHECK(has(refusal({"\xFF\xFE"
                     "a\0",
                     4},
                    kTsv),
            "is UTF-16"));
  CHECK(has(refusal(std::string(2000, '\t') + "\n", kTsv), "t:1: more than 1024 columns"));
  CHECK(has(refusal("{\"a\": 1}\n{\"b\": 1}\n", kJsonl), "t:2: lacks key 'a'"));
  CHECK(has(refusal("{\"a\": 1, \"a\": 2}\n", kJsonl), "t:1: key 'a' appears twice"));
  CHECK(has(refusal("{\"a\": 1}\n\n{\"a\": 1", kJsonl), "t:3: is no JSON:"));
  CHECK(has(refusal("{\"a\": 1} {\"a\": 2}\n", kJsonl), "t:1: is no JSON:"));
  CHECK(has(refusal("{\"a\": 1e999}\n", kJsonl), "t:1: is no JSON: number overflow"));
  CHECK(has(refusal("{\"a\": \"\\ud800\"}\n", kJsonl), "t:1: is no JSON:"));
  CHECK(has(refusal("{\"a\": \"\\u0000\"}\n", kJsonl), "t:1: holds the character \\u0000"));
  CHECK(has(refusal("[{\"a\": 1}]\n", kJsonl), "t:1: is an array; wanted one JSON object a line"));
  CHECK(has(refusal("{}\n", kJsonl), "t:1: is an object without keys"));
  CHECK(has(refusal("7\n", kJsonl), "t:1: is no JSON object"));
  CHECK(has(refusal("{\"a\": " + deep, kJsonl), "t:1: is no JSON: nested deeper than 64"));
  TableOptions small = kTsv;
  small.max_field_bytes = 5;
  CHECK(has(refusal("a\tb\n1\t123456\n", small), "t:2: column 2 has more than 5 bytes"));
  CHECK(rows_of("a\tb\n1\t12345\n", small) == Rows{{"1", "12345"}});
  small.format = TableFormat::csv;
  CHECK(has(refusal("a,b\n\"1\n2\n3\n4,5\n", small), "opens a quote"));
  CHECK(has(refusal("a,b\n\"1\n2\n3\n4,5\n\"", small), "t:2: column 1 has more than 5 bytes"));
  small.format = TableFormat::jsonl;
  CHECK(has(refusal("{\"a\": \"123456\"}", small), "t:1: column 1 has more than 5 bytes"));
}

TEST_CASE("table: columns by name") {
  const Table table = parse_table("a\tb\tb\n1\t2\t3\n", kTsv, "t");
  CHECK(table.column("a") == 0);
  CHECK(has(message_of<FileError>([&] { table.column("c"); }),
            "t: no column 'c'; known columns are: 'a', 'b', 'b'"));
  CHECK(has(message_of<FileError>([&] { table.column("b"); }), "more than one column 'b'"));
}

TEST_CASE("table: malformed rows are dropped where that is asked for") {
  TableOptions options = kTsv;
  options.skip_malformed = true;
  const Table table = parse_table("a\tb\n1\n2\t3\n4\t5\t6\n7\t8", options, "t");
  CHECK(rows_of(table) == Rows{{"2", "3"}, {"7", "8"}});
  CHECK(table.skipped() == 2);
  CHECK(table.line(1) == 5);
  CHECK(has(refusal("a\tb\n1\n2\n", options), "no row has as many columns as the header"));
}

TEST_CASE("table: files by extension") {
  const TempFolder folder;
  CHECK(rows_of(read_table(folder.write("x.tsv", "a\n\"q\"\n"))) == Rows{{"\"q\""}});
  CHECK(rows_of(read_table(folder.write("x.csv", "a\n\"q\"\n"))) == Rows{{"q"}});
  CHECK(rows_of(read_table(folder.write("x.jsonl", "{\"a\":\"q\"}\n"))) == Rows{{"q"}});
  const auto other = folder.write("x.dat", "a\n\"q\"\n");
  CHECK(has(message_of<FileError>([&] { read_table(other); }), "extension '.dat'"));
  CHECK(rows_of(read_table(other, kCsv)) == Rows{{"q"}});
  CHECK(has(message_of<FileError>([&] { read_table(folder / "none.tsv"); }), "none.tsv"));
  CHECK(parse_table_format("jsonl") == TableFormat::jsonl);
  CHECK(has(message_of<UsageError>([] { parse_table_format("xml"); }), "wanted auto, tsv, csv"));
}

// Every prefix and every single-byte change either reads or is refused.
TEST_CASE("table: damaged texts are read or refused, never worse") {
  const std::string_view texts[] = {"a\tb\n1\t\"2\n\xC3\xA9\t4\r\n", "a,b\r\n\"1\"\"\n\",2\n,\"\"",
                                    "{\"a\":\"\\u00e9\",\"b\":[1]}\n{\"b\":1.5,\"a\":null}"};
  const TableOptions options[] = {kTsv, kCsv, kJsonl};
  int64_t read = 0;
  int64_t refused = 0;
  for (size_t i = 0; i < 3; ++i) {
    const auto attempt = [&](const std::string& text) {
      try {
        rows_of(text, options[i]);
        ++read;
      } catch (const FileError&) {
        ++refused;
      }
    };
    for (size_t n = 0; n < texts[i].size(); ++n) {
      attempt(std::string(texts[i].substr(0, n)));
      for (const char byte : {'\0', '\n', '\r', '"', ',', '\t', '{', '\xFF', 'x'}) {
        std::string changed(texts[i]);
        changed[n] = byte;
        attempt(changed);
      }
    }
  }
  CHECK(read > 100);
  CHECK(refused > 100);
}

TextExamples examples(std::string_view text, const TableExampleOptions& options) {
  return table_examples(parse_table(std::string(text), kTsv, "t"), options);
}

TEST_CASE("examples: labels by name, by number and of regression") {
  TableExampleOptions options;
  const TextExamples named = examples("label\tsentence\npos\tx y\nneg\tz\npos\t\n", options);
  CHECK(named.label_names == std::vector<std::string>{"neg", "pos"});
  CHECK(named.examples[0].label == 1);
  CHECK(named.examples[0].text == "x y");
  CHECK_FALSE(named.examples[0].pair);
  CHECK(named.examples[1].label == 0);

  // Integers in the order of numbers, from wherever they start.
  const TextExamples stars = examples("label\tsentence\n10\ta\n-1\tb\n 9 \tc\n", options);
  CHECK(stars.label_names == std::vector<std::string>{"-1", "9", "10"});
  CHECK(stars.examples[0].label == 2);
  CHECK(stars.examples[2].label == 1);

  options.label_names = {"no", "yes"};  // another split's: "yes" alone stays class 1
  options.pair_column = "other";
  const TextExamples both = examples("label\tother\tsentence\nyes\tp\tt\n0\tq\t\n", options);
  CHECK(both.examples[0].label == 1);
  CHECK(both.examples[0].pair == "p");
  CHECK(both.examples[1].label == 0);
  const auto refuse = [&](std::string_view text) {
    return message_of<FileError>([&] { examples(text, options); });
  };
  options.pair_column = "";
  CHECK(has(refuse("label\tsentence\n2\tx\n"), "t:2: label '2'; wanted one of: 'no', 'yes'"));
  CHECK(has(refuse("label\tsentence\n\tx\n"), "t:2: label ''"));
  options.label_names = {"1", "2"};  // a name that is a number is never a position
  CHECK(has(refuse("label\tsentence\n0\tx\n"), "label '0'; wanted one of: '1', '2'"));
  options.label_names = {"a", "a"};
  CHECK(
      has(message_of<UsageError>([&] { examples("label\tsentence\na\tx\n", options); }), "twice"));
  options.label_names.clear();
  CHECK(has(refuse("label\tsentence\na\tx\n\tx\n"), "t:3: the label is empty"));
  CHECK(has(refuse("label\ttext\na\tx\n"), "no column 'sentence'"));
  options.label_column = "text";
  CHECK(has(refuse("label\tsentence\na\tx\n"), "no column 'text'"));
  std::string many = "text\tsentence\n";
  for (int i = 0; i < 5000; ++i) {
    many += fmt::format("text {}\tx\n", i);
  }
  CHECK(has(refuse(many), "more than 4096 different values"));

  options.label_column = "label";
  options.regression = true;
  const TextExamples scores = examples("label\tsentence\n2.5\tx\n-1e-3\ty\n", options);
  CHECK(scores.examples[0].score == 2.5);
  CHECK(scores.examples[1].score == -1e-3);
  CHECK(scores.label_names.empty());
  for (const std::string_view bad : {"x", "", "nan", "inf", "1.5x", "1e999"}) {
    CAPTURE(bad);
    CHECK(has(refuse(fmt::format("label\tsentence\n{}\tx\n", bad)), "t:2: "));
  }
  options.label_column = "";
  const TextExamples bare = examples("sentence\nx\n", options);
  CHECK_FALSE(bare.labelled);
}

}  // namespace
}  // namespace lithe
