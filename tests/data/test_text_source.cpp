// Encoded texts as batches, padded by either rule, and the synthetic ones.
#include <doctest/doctest.h>

#include <set>

#include "../io/temp_folder.h"
#include "data/text_source.h"
#include "tensor/core/error.h"
#include "word_tokenizer.h"

namespace lithe {
namespace {

template <typename T>
std::vector<T> values(const Batch& batch, std::string_view name, const Shape& shape) {
  const Tensor* tensor = batch.find(name);
  REQUIRE(tensor != nullptr);
  REQUIRE(tensor->shape() == shape);
  const auto span = tensor->as<T>();
  return {span.begin(), span.end()};
}

TextExamples three_examples() {
  TextExamples out;
  out.examples = {
      {"a bb", std::nullopt, 1, 0.5}, {"ccc", "d ee fff gggg", 0, 1.25}, {"", std::nullopt, 2, -1}};
  out.label_names = {"x", "y", "z"};
  return out;
}

std::shared_ptr<const EncodedTexts> encoded(const TextExamples& examples, int64_t max_length = 8) {
  return std::make_shared<const EncodedTexts>(
      encode_examples(examples, WordTokenizer(), max_length));
}

TEST_CASE("text source: padding to the longest, to a multiple, to max_length") {
  const auto texts = encoded(three_examples());
  CHECK(texts->rows() == 3);
  CHECK(texts->length(0) == 4);
  CHECK(texts->length(1) == 8);
  CHECK(texts->length(2) == 2);

  TextSourceOptions options;
  options.max_length = 8;
  options.pad_multiple = 1;
  options.pad_id = 99;
  const TextSource source(texts, options);
  CHECK(source.size() == 3);
  CHECK(source.length(1) == 8);
  Batch batch;
  batch.rows = {2, 0};
  source.fill(batch);
  CHECK(batch.tokens == 4);
  CHECK(values<int64_t>(batch, "input_ids", {2, 4}) ==
        std::vector<int64_t>{1, 2, 99, 99, 1, 4, 5, 2});
  CHECK(values<int64_t>(batch, "token_type_ids", {2, 4}) == std::vector<int64_t>(8, 0));
  CHECK(values<bool>(batch, "attention_mask", {2, 4}) ==
        std::vector<bool>{true, true, false, false, true, true, true, true});
  CHECK(values<int64_t>(batch, "labels", {2}) == std::vector<int64_t>{2, 1});

  batch.rows = {1};
  source.fill(batch);  // another shape: the tensors are made again
  CHECK(batch.tokens == 8);
  CHECK(values<int64_t>(batch, "token_type_ids", {1, 8}) ==
        std::vector<int64_t>{0, 0, 0, 1, 1, 1, 1, 1});
  CHECK(values<int64_t>(batch, "labels", {1}) == std::vector<int64_t>{0});

  const auto tokens = [&](TextPadding padding, int64_t multiple, int64_t max_length) {
    Batch one;
    one.rows = {0};
    TextSource(texts, {max_length, padding, multiple, 0}).fill(one);
    return one.tokens;
  };
  CHECK(tokens(TextPadding::longest, 8, 20) == 8);
  CHECK(tokens(TextPadding::longest, 3, 20) == 6);
  CHECK(tokens(TextPadding::longest, 64, 20) == 20);  // never above max_length
  CHECK(tokens(TextPadding::fixed, 8, 20) == 20);
}

TEST_CASE("text source: a batch that is filled again keeps its storage") {
  const auto texts = encoded(three_examples());
  const TextSource source(texts, {8, TextPadding::fixed, 8, 0});
  Batch batch;
  batch.rows = {1, 1};
  source.fill(batch);
  const std::byte* ids = batch.find("input_ids")->data();
  batch.rows = {2, 0};
  source.fill(batch);
  CHECK(batch.find("input_ids")->data() == ids);
  CHECK(values<int64_t>(batch, "input_ids", {2, 8}) ==
        std::vector<int64_t>{1, 2, 0, 0, 0, 0, 0, 0, 1, 4, 5, 2, 0, 0, 0, 0});
}

TEST_CASE("text source: truncation keeps the special tokens") {
  const auto texts = encoded(three_examples(), 6);
  CHECK(texts->length(1) == 6);  // [CLS] ccc [SEP] d ee [SEP]
  CHECK(std::vector<int32_t>(texts->ids.begin() + 4, texts->ids.begin() + 10) ==
        std::vector<int32_t>{1, 6, 2, 4, 5, 2});
}

TEST_CASE("text source: scores, spans and no labels") {
  TextExamples examples = three_examples();
  examples.regression = true;
  Batch batch;
  batch.rows = {1, 2};
  TextSource(encoded(examples), {}).fill(batch);
  CHECK(values<float>(batch, "labels", {2}) == std::vector<float>{1.25f, -1});

  EncodedTexts spans = *encoded(examples);
  spans.kind = TextLabels::spans;
  spans.spans = {{0, 0}, {3, 5}, {1, 1}};
  Batch span_batch;
  span_batch.rows = {1, 2, 0};
  TextSource(std::make_shared<const EncodedTexts>(spans), {}).fill(span_batch);
  CHECK(values<int64_t>(span_batch, "labels", {2, 3}) == std::vector<int64_t>{3, 1, 0, 5, 1, 0});

  examples.labelled = false;
  Batch bare;
  bare.rows = {0};
  TextSource(encoded(examples), {}).fill(bare);
  CHECK(bare.find("labels") == nullptr);
}

TEST_CASE("text source: what does not fit is refused") {
  const auto texts = encoded(three_examples());
  const auto refusal = [&](const EncodedTexts& wrong, const TextSourceOptions& options) {
    return message_of<UsageError>(
        [&] { TextSource(std::make_shared<const EncodedTexts>(wrong), options); });
  };
  CHECK(has(refusal(*texts, {7, TextPadding::longest, 8, 0}), "row 1 has 8 tokens"));
  CHECK(has(refusal(*texts, {0, TextPadding::longest, 8, 0}), "max_length is 0"));
  CHECK(has(refusal(*texts, {8, TextPadding::longest, 0, 0}), "pad_multiple is 0"));
  CHECK(has(refusal({}, {}), "no rows"));
  EncodedTexts wrong = *texts;
  wrong.classes.pop_back();
  CHECK(has(refusal(wrong, {}), "3 rows, 2 labels"));
  wrong = *texts;
  wrong.kind = TextLabels::spans;
  for (const std::array<int32_t, 2> span : {std::array{0, 2}, {1, 0}, {-1, 0}}) {
    wrong.spans = {{0, 0}, {0, 0}, span};
    CHECK(has(refusal(wrong, {}), "row 2 of 2 tokens has its answer at"));
  }
}

TEST_CASE("text source: many examples keep their order") {
  TextExamples examples;
  for (int64_t i = 0; i < 5000; ++i) {
    examples.examples.push_back({std::string(static_cast<size_t>(i % 50 + 1), 'x'), {}, i % 2, 0});
  }
  const auto texts = encoded(examples);
  REQUIRE(texts->rows() == 5000);
  for (int64_t i = 0; i < 5000; ++i) {
    REQUIRE(texts->ids[static_cast<size_t>(texts->offsets[static_cast<size_t>(i)]) + 1] ==
            WordTokenizer::kFirst + i % 50 + 1);
    REQUIRE(texts->classes[static_cast<size_t>(i)] == i % 2);
  }
  CHECK_THROWS_AS(encode_examples(three_examples(), WordTokenizer(), 4, Truncation::none), Error);
}

TEST_CASE("synthetic text: a pure function of seed and row") {
  SyntheticText shape;
  shape.size = 100;
  shape.tokens = 17;
  shape.vocabulary = 50;
  shape.classes = 3;
  shape.seed = 5;
  const auto source = make_synthetic_text(shape);
  CHECK(source->size() == 100);
  CHECK(source->length(3) == 17);
  Batch together;
  together.rows = {7, 99};
  source->fill(together);
  Batch alone;
  alone.rows = {99};
  source->fill(alone);
  CHECK(together.tokens == 17);
  const auto both = values<int64_t>(together, "input_ids", {2, 17});
  const auto one = values<int64_t>(alone, "input_ids", {1, 17});
  CHECK(std::vector(both.begin() + 17, both.end()) == one);
  CHECK(std::vector(both.begin(), both.begin() + 17) != one);
  CHECK(values<bool>(alone, "attention_mask", {1, 17}) == std::vector<bool>(17, true));

  Batch all;
  for (int64_t row = 0; row < 100; ++row) {
    all.rows.push_back(row);
  }
  source->fill(all);
  const auto ids = values<int64_t>(all, "input_ids", {100, 17});
  CHECK(std::set(ids.begin(), ids.end()).size() == 50);
  CHECK(*std::max_element(ids.begin(), ids.end()) == 49);
  const auto labels = values<int64_t>(all, "labels", {100});
  CHECK(std::set(labels.begin(), labels.end()) == std::set<int64_t>{0, 1, 2});

  shape.seed = 6;
  Batch other;
  other.rows = {99};
  make_synthetic_text(shape)->fill(other);
  CHECK(values<int64_t>(other, "input_ids", {1, 17}) != one);

  shape.labels = TextLabels::spans;
  const auto span_source = make_synthetic_text(shape);
  all.fields.clear();
  span_source->fill(all);
  const auto spans = values<int64_t>(all, "labels", {2, 100});
  for (size_t i = 0; i < 100; ++i) {
    CHECK(spans[i] >= 0);
    CHECK(spans[i] <= spans[100 + i]);
    CHECK(spans[100 + i] < 17);
  }
  shape.labels = TextLabels::scores;
  all.fields.clear();
  make_synthetic_text(shape)->fill(all);
  for (const float score : values<float>(all, "labels", {100})) {
    CHECK(score >= 0);
    CHECK(score < 5);
  }
  shape.tokens = 0;
  CHECK(has(message_of<UsageError>([&] { make_synthetic_text(shape); }), "tokens is 0"));
}

}  // namespace
}  // namespace lithe
