// SQuAD files, their windows and the decoding of logits (tests/golden/metrics.json).
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "../io/temp_folder.h"
#include "data/squad_decode.h"
#include "tensor/core/error.h"
#include "tensor/core/whole_file.h"
#include "word_tokenizer.h"

namespace lithe {
namespace {

using nlohmann::json;

const json& golden() {
  static const json all = json::parse(
      read_whole_file(std::string(LITHE_SOURCE_DIR) + "/tests/golden/metrics.json"))["squad"];
  return all;
}

std::string paragraph(std::string_view questions) {
  return fmt::format(
      R"({{"version": "1.1", "data": [{{"title": "T", "paragraphs": [{{"qas": [{}], )"
      R"("context": "Zoë saw 東京 once."}}]}}]}})",
      questions);
}

std::string question(std::string_view rest) {
  return paragraph(fmt::format(R"({{"id": "q", "question": "Who?"{}}})", rest));
}

TEST_CASE("squad: answers by code points, questions before their context") {
  const SquadData data =
      parse_squad(paragraph(R"({"answers": [{"answer_start": 8, "text": "東京"}, {"text": "Zoë",
                   "answer_start": 0}], "id": "a", "question": "What?", "extra": {"data": [1]}},
                   {"id": "b", "question": "Why?", "is_impossible": true, "answers": [],
                   "plausible_answers": [{"text": "not there", "answer_start": 99}]})"),
                  "t");
  CHECK(data.titles == std::vector<std::string>{"T"});
  REQUIRE(data.questions.size() == 2);
  REQUIRE(data.questions[0].answers.size() == 2);
  CHECK(data.questions[0].answers[0].begin == 9);
  CHECK(data.contexts[0].text.substr(9, 6) == "東京");
  CHECK(data.questions[0].answers[1].begin == 0);
  CHECK(data.questions[1].answers.empty());
  CHECK(data.questions[1].text == "Why?");
}

TEST_CASE("squad: hostile and damaged files are refused with their place") {
  const auto refusal = [](std::string_view text) {
    return message_of<FileError>([&] { parse_squad(text, "t"); });
  };
  CHECK(has(refusal(""), "[squad] t:1:1: is no JSON"));
  CHECK(has(refusal("{\"data\":\n  [}"), "t:2:4: is no JSON"));
  CHECK(has(refusal("[]"), "is an array; wanted an object with the key \"data\""));
  CHECK(has(refusal("3"), "is a single value"));
  CHECK(has(refusal("{}"), "holds no questions"));
  CHECK(has(refusal(R"({"data": []})"), "holds no questions"));
  CHECK(has(refusal(R"({"data": {}})"), "\"data\" is of the wrong type; wanted an array"));
  CHECK(has(refusal(R"({"data": 1})"), "\"data\" is of the wrong type"));
  CHECK(has(refusal(R"({"data": [1]})"), "wanted only objects"));
  CHECK(has(refusal(R"({"data": [[]]})"), "wanted only objects"));
  CHECK(has(refusal(R"({"data": [{"paragraphs": [{"qas": []}]}]})"),
            "article 1, paragraph 1: the paragraph lacks \"context\""));
  CHECK(has(refusal(question("")), "question 1: id 'q' has no answers"));
  CHECK(has(refusal(question(R"(, "answers": [])")), "has no answers; give one, or set"));
  CHECK(has(refusal(question(R"(, "answers": {})")), "\"answers\" is of the wrong type"));
  CHECK(has(refusal(question(R"(, "answers": null)")), "\"answers\" is of the wrong type"));
  CHECK(has(refusal(question(R"(, "answers": [{"text": "Zoë"}])")), "lacks \"answer_start\""));
  CHECK(has(refusal(question(R"(, "answers": [{"answer_start": 0}])")), "lacks \"text\""));
  const auto answer = [](std::string_view text, std::string_view start) {
    return question(
        fmt::format(R"(, "answers": [{{"text": "{}", "answer_start": {}}}])", text, start));
  };
  CHECK(refusal(answer("saw", "4")) == "(nothing was thrown)");
  CHECK(has(refusal(answer("saw", "5")),
            "id 'q': answer 'saw' is not at answer_start 5 of its context (16 characters)"));
  for (const char* start : {"-1", "17", "16", "9223372036854775807", "-9223372036854775808"}) {
    CAPTURE(start);
    CHECK(has(refusal(answer("saw", start)), "is not at answer_start"));
  }
  for (const char* start : {"4.0", "18446744073709551615", "\"4\"", "null", "true", "[4]", "{}"}) {
    CAPTURE(start);
    CHECK(has(refusal(answer("saw", start)), "\"answer_start\" is of the wrong type"));
  }
  CHECK(has(refusal(answer("", "4")), "an answer's text is empty"));
  CHECK(has(refusal(question(R"(, "is_impossible": 1, "answers": [])")), "wanted true or false"));
  CHECK(has(refusal(question(R"(, "is_impossible": true,
            "answers": [{"text": "saw", "answer_start": 4}])")),
            "is_impossible and has answers"));
  CHECK(has(refusal(question(R"(, "id": "r")")), "key \"id\" appears twice"));
  CHECK(has(refusal(paragraph(R"({"question": "Who?", "answers": []})")), "lacks \"id\""));
  CHECK(has(refusal(paragraph(R"({"id": "", "question": "?", "is_impossible": true})")),
            "\"id\" is empty"));
  CHECK(has(refusal(paragraph(R"({"id": 5, "question": "?"})")), "\"id\" is of the wrong type"));
  CHECK(has(refusal(paragraph(R"({"id": "q", "is_impossible": true})")), "lacks \"question\""));
  CHECK(has(refusal(R"({"data": [{"paragraphs": [{"context": "x", "qas": []}]}]})"),
            "article 1, paragraph 2: the article holds no questions"));
  CHECK(has(refusal(R"({"data": [{}]})"), "the article holds no questions"));
  std::string answers = R"({"text": "saw", "answer_start": 4})";
  for (int i = 1; i < 1000; ++i) {
    answers += R"(, {"text": "saw", "answer_start": 4})";
  }
  CHECK(refusal(question(fmt::format(R"(, "answers": [{}])", answers))) == "(nothing was thrown)");
  answers += R"(, {"text": "saw", "answer_start": 4})";
  CHECK(has(refusal(question(fmt::format(R"(, "answers": [{}])", answers))), "more than 1000"));
  const std::string one = R"({"id": "q", "question": "?", "is_impossible": true})";
  CHECK(has(refusal(paragraph(one + "," + one)), "two questions have id 'q'"));
  CHECK(has(refusal(question(", \"x\": " + std::string(100000, '['))), "nested deeper than 64"));
  CHECK(has(refusal(question(", \"x\": \"\xFF\"")), "is no JSON"));
  const std::string large =
      R"({"data": [{"paragraphs": [{"context": ")" + std::string(2 << 20, 'x') + R"("}]}]})";
  CHECK(has(refusal(large), "a context of 2097152 bytes"));
  const std::string whole = golden()["file"].dump();
  for (size_t n = 0; n < whole.size(); n += 7) {
    CAPTURE(n);
    CHECK(has(refusal(whole.substr(0, n)), "is no JSON"));
  }
  CHECK(has(message_of<FileError>([] { read_squad("/nonexistent/x.json"); }), "x.json"));
}

TEST_CASE("squad: articles divide a file") {
  const SquadData data = parse_squad(golden()["file"].dump(), "golden");
  const SquadData second = select_articles(data, 1, 2);
  CHECK(second.titles == std::vector<std::string>{"Clocks"});
  CHECK(second.contexts.size() == 1);
  CHECK(second.contexts[0].article == 0);
  REQUIRE(second.questions.size() == 4);
  CHECK(second.questions[0].id == "c1");
  CHECK(second.questions[0].context == 0);
  CHECK(select_articles(data, 0, 2).questions.size() == data.questions.size());
  CHECK_THROWS_AS(select_articles(data, 1, 3), UsageError);
  CHECK_THROWS_AS(select_articles(data, 1, 1), UsageError);
}

SquadFeatures golden_features(const SquadData& data, bool keep_spans) {
  SquadFeatureOptions options;
  options.max_length = golden()["max_length"].get<int64_t>();
  options.stride = golden()["stride"].get<int64_t>();
  options.keep_spans = keep_spans;
  return squad_features(data, WordTokenizer(), options);
}

TEST_CASE("squad: windows and their labels") {
  const SquadData data = parse_squad(golden()["file"].dump(), "golden");
  const SquadFeatures features = golden_features(data, true);
  const json& windows = golden()["windows"];
  REQUIRE(features.windows.size() == windows.size());
  REQUIRE(features.texts.rows() == static_cast<int64_t>(windows.size()));
  for (size_t row = 0; row < windows.size(); ++row) {
    CAPTURE(row);
    const json& wanted = windows[row];
    const SquadWindow& window = features.windows[row];
    const SquadQuestion& asked = data.questions[static_cast<size_t>(window.question)];
    CHECK(asked.id == wanted["id"].get<std::string>());
    CHECK(features.texts.length(static_cast<int64_t>(row)) == wanted["length"].get<int64_t>());
    CHECK(window.context_begin == wanted["context_begin"].get<int64_t>());
    const auto texts = wanted["texts"].get<std::vector<std::string>>();
    CHECK(window.context_end - window.context_begin == static_cast<int64_t>(texts.size()));
    CHECK(features.texts.spans[row][0] == wanted["start"].get<int64_t>());
    CHECK(features.texts.spans[row][1] == wanted["end"].get<int64_t>());
    const std::string& context = data.contexts[static_cast<size_t>(asked.context)].text;
    const auto offset = static_cast<size_t>(features.texts.offsets[row]);
    CHECK(features.texts.ids[offset] == WordTokenizer::kCls);
    CHECK(features.spans[offset] == TextSpan{});
    CHECK(features.spans[offset + 1] == TextSpan{});  // the question's bytes are not kept
    for (size_t i = 0; i < texts.size(); ++i) {
      const size_t at = offset + static_cast<size_t>(window.context_begin) + i;
      const TextSpan span = features.spans[at];
      CHECK(context.substr(static_cast<size_t>(span.begin),
                           static_cast<size_t>(span.end - span.begin)) == texts[i]);
      CHECK(features.texts.types[at] == 1);
    }
  }
  CHECK(golden_features(data, false).spans.empty());
}

TEST_CASE("squad: options and questions that leave no room") {
  const SquadData data = parse_squad(golden()["file"].dump(), "golden");
  SquadFeatureOptions options;
  options.max_length = 12;
  options.stride = 5;
  CHECK(has(message_of<FileError>([&] { squad_features(data, WordTokenizer(), options); }),
            "question 'r1' has 7 tokens, which leaves 2 of max_length 12"));
  options.stride = 9;
  CHECK(has(message_of<UsageError>([&] { squad_features(data, WordTokenizer(), options); }),
            "max_length 12 and stride 9"));
  options.stride = -1;
  CHECK_THROWS_AS(squad_features(data, WordTokenizer(), options), UsageError);
}

TEST_CASE("squad: a context without tokens is one window without labels") {
  SquadData data;
  data.contexts.push_back({"   ", 0});
  data.questions.push_back({"q", "Who ?", 0, {{" ", 1}}});
  SquadFeatureOptions options;
  options.keep_spans = true;
  const SquadFeatures features = squad_features(data, WordTokenizer(), options);
  REQUIRE(features.windows.size() == 1);
  CHECK(features.texts.spans[0] == std::array<int32_t, 2>{0, 0});
  SquadDecoder decoder(data, features, {});
  const std::vector<float> logits(static_cast<size_t>(features.texts.length(0)), 1.0f);
  decoder.add(0, logits, logits);
  CHECK(decoder.finish()[0].text.empty());
}

// The golden script's logits; exact in fp32.
std::vector<float> logits(int64_t row, int64_t tokens, int64_t which) {
  std::vector<float> out;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t mixed = row * 7919 + t * 104729 + which * 15485863;
    out.push_back(static_cast<float>(mixed * mixed % 99991) / 8192 + (t == 0 ? 4 : 0));
  }
  return out;
}

TEST_CASE("squad: n-best decoding, with and without no-answer") {
  const SquadData data = parse_squad(golden()["file"].dump(), "golden");
  const SquadFeatures features = golden_features(data, true);
  for (const bool no_answer : {true, false}) {
    CAPTURE(no_answer);
    SquadDecodeOptions options;
    options.best = golden()["best"].get<int64_t>();
    options.max_answer_tokens = golden()["max_answer_tokens"].get<int64_t>();
    options.no_answer = no_answer;
    SquadDecoder decoder(data, features, options);
    const int64_t rows = features.texts.rows();
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = i * 5 % rows;  // 28 rows: any order gives the same
      const int64_t padded = 24;
      decoder.add(row, logits(row, padded, 0), logits(row, padded, 1));
    }
    const std::vector<SquadPrediction> got = decoder.finish();
    const json& wanted = golden()[no_answer ? "decoded" : "decoded_v1"];
    REQUIRE(got.size() == wanted.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(data.questions[i].id);
      CHECK(got[i].text == wanted[i]["text"].get<std::string>());
      CHECK(got[i].answer == wanted[i]["answer"].get<std::string>());
      CHECK(got[i].null_odds ==
            doctest::Approx(wanted[i]["null_odds"].get<double>()).epsilon(1e-12));
      const json& candidates = wanted[i]["candidates"];
      REQUIRE(got[i].candidates.size() == candidates.size());
      for (size_t c = 0; c < candidates.size(); ++c) {
        CHECK(got[i].candidates[c].text == candidates[c][0].get<std::string>());
        CHECK(got[i].candidates[c].score == candidates[c][1].get<double>());
        CHECK(got[i].candidates[c].probability ==
              doctest::Approx(candidates[c][2].get<double>()).epsilon(1e-12));
      }
    }
  }
}

TEST_CASE("squad: the null threshold, and decoders used wrongly") {
  SquadData data;
  data.contexts.push_back({"one two three", 0});
  data.questions.push_back({"q", "Who ?", 0, {}});
  SquadFeatureOptions keep;
  keep.keep_spans = true;
  const SquadFeatures features = squad_features(data, WordTokenizer(), keep);
  REQUIRE(features.texts.length(0) == 8);  // [CLS] Who ? [SEP] one two three [SEP]
  const std::vector<float> start = {2, 9, 0, 0, 0, 1.5, 0, 0};
  const std::vector<float> end = {2, 0, 9, 0, 0, 0, 1.5, 0};
  const auto decode = [&](double threshold, int64_t longest, int64_t best = 20) {
    SquadDecodeOptions options;
    options.null_threshold = threshold;
    options.max_answer_tokens = longest;
    options.best = best;
    SquadDecoder decoder(data, features, options);
    decoder.add(0, start, end);
    return decoder.finish()[0];
  };
  CHECK(decode(0, 30).text.empty());
  CHECK(decode(0, 30).null_odds == 1.0);
  CHECK(decode(0, 30).answer == "two three");
  CHECK(decode(1.0, 30).text == "two three");  // above, not at, the threshold
  CHECK(decode(9, 1).text == "two");
  // The question's own tokens are highest, so three starts and ends are two of the context's.
  CHECK(decode(9, 30, 3).candidates.size() == 2);
  CHECK(decode(9, 30, 1).answer.empty());

  const SquadFeatures bare = squad_features(data, WordTokenizer(), {});
  CHECK(has(message_of<UsageError>([&] { SquadDecoder(data, bare, {}); }), "keep_spans"));
  SquadDecoder decoder(data, features, {});
  CHECK(has(message_of<UsageError>([&] { decoder.finish(); }), "1 of 1 rows have no logits"));
  const std::span<const float> cut = std::span(start).first(7);
  CHECK(has(message_of<ShapeError>([&] { decoder.add(0, cut, end); }), "7 start and 8 end logits"));
  std::vector<float> bad = start;
  bad[5] = NAN;
  CHECK(has(message_of<NumericalError>([&] { decoder.add(0, bad, end); }), "row 0, token 5"));
  CHECK_THROWS_AS(decoder.add(1, start, end), UsageError);
  CHECK_THROWS_AS(decoder.add(-1, start, end), UsageError);
  decoder.add(0, start, end);
  CHECK_THROWS_AS(decoder.add(0, start, end), UsageError);
}

}  // namespace
}  // namespace lithe
