#include "data/text_source.h"

#include <algorithm>
#include <exception>
#include <string_view>

#include "tensor/core/checked.h"
#include "tensor/core/philox.h"

namespace lithe {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 20;
constexpr uint64_t kTokenStream = 0x746f6b656e;     // "token"
constexpr uint64_t kAnswerStream = 0x616e73776572;  // "answer"

void check_option(std::string_view key, int64_t value, int64_t high) {
  if (value < 1 || value > high) {
    throw UsageError("text", "{} is {}; wanted 1..{}", key, value, high);
  }
}

// The three inputs of a batch, with batch.tokens set.
struct Inputs {
  Inputs(Batch& batch, int64_t tokens) {
    batch.tokens = tokens;
    const Shape shape{batch.count(), tokens};
    ids = batch.field("input_ids", DType::i64, shape).as<int64_t>();
    types = batch.field("token_type_ids", DType::i64, shape).as<int64_t>();
    mask = batch.field("attention_mask", DType::boolean, shape).as<bool>();
  }
  std::span<int64_t> ids;
  std::span<int64_t> types;
  std::span<bool> mask;
};

std::span<int64_t> int_labels(Batch& batch, const Shape& shape) {
  return batch.field("labels", DType::i64, shape).as<int64_t>();
}

class SyntheticSource final : public BatchSource {
 public:
  explicit SyntheticSource(const SyntheticText& shape) : shape_(shape) {}

  int64_t size() const override { return shape_.size; }
  int64_t length(int64_t) const override { return shape_.tokens; }

  void fill(Batch& batch) const override {
    const Inputs out(batch, shape_.tokens);
    std::fill(out.types.begin(), out.types.end(), int64_t{0});
    std::fill(out.mask.begin(), out.mask.end(), true);
    const auto vocabulary = static_cast<uint64_t>(shape_.vocabulary);
    size_t at = 0;
    for (const int64_t row : batch.rows) {
      const uint64_t stream = mix(kTokenStream, static_cast<uint64_t>(row));
      for (int64_t token = 0; token < shape_.tokens; ++token) {
        const PhiloxBlock block = philox(shape_.seed, stream, static_cast<uint64_t>(token) / 4);
        out.ids[at++] = static_cast<int64_t>(block.word[token % 4] % vocabulary);
      }
    }
    fill_labels(batch);
  }

 private:
  void fill_labels(Batch& batch) const {
    const int64_t count = batch.count();
    const auto answer = [&](size_t i) {
      return philox(shape_.seed, kAnswerStream, static_cast<uint64_t>(batch.rows[i]));
    };
    const auto rows = static_cast<size_t>(count);
    if (shape_.labels == TextLabels::classes) {
      const auto labels = int_labels(batch, {count});
      for (size_t i = 0; i < rows; ++i) {
        labels[i] = static_cast<int64_t>(answer(i).word[0] % static_cast<uint64_t>(shape_.classes));
      }
    } else if (shape_.labels == TextLabels::scores) {
      const auto labels = batch.field("labels", DType::f32, {count}).as<float>();
      for (size_t i = 0; i < rows; ++i) {
        labels[i] = 5 * uniform01(answer(i).word[0]);  // the range of STS-B
      }
    } else if (shape_.labels == TextLabels::spans) {
      const auto labels = int_labels(batch, {2, count});
      for (size_t i = 0; i < rows; ++i) {
        const PhiloxBlock block = answer(i);
        const auto tokens = static_cast<uint64_t>(shape_.tokens);
        const uint64_t first = block.word[0] % tokens;
        labels[i] = static_cast<int64_t>(first);
        labels[rows + i] = static_cast<int64_t>(first + block.word[1] % (tokens - first));
      }
    }
  }

  SyntheticText shape_;
};

}  // namespace

void EncodedTexts::add(const Encoding& encoding) {
  ids.insert(ids.end(), encoding.ids.begin(), encoding.ids.end());
  for (const int32_t type : encoding.type_ids) {
    types.push_back(static_cast<int8_t>(type));
  }
  offsets.push_back(static_cast<int64_t>(ids.size()));
}

EncodedTexts encode_examples(const TextExamples& examples, const Tokenizer& tokenizer,
                             int64_t max_length, Truncation truncation) {
  EncodedTexts out;
  const size_t rows = examples.examples.size();
  out.offsets.reserve(rows + 1);
  // By blocks, so that the encodings of a large file are never all there beside the flat arrays.
  constexpr size_t kBlock = 4096;
  std::vector<Encoding> block;
  std::exception_ptr error;
  for (size_t begin = 0; begin < rows; begin += kBlock) {
    const auto count = static_cast<int64_t>(std::min(kBlock, rows - begin));
    block.assign(static_cast<size_t>(count), {});
#pragma omp parallel for schedule(dynamic, 64)
    for (int64_t i = 0; i < count; ++i) {
      try {
        const TextExample& example = examples.examples[begin + static_cast<size_t>(i)];
        std::optional<std::string_view> pair;
        if (example.pair) {
          pair = *example.pair;
        }
        block[static_cast<size_t>(i)] =
            tokenizer.encode(example.text, pair, max_length, truncation);
      } catch (...) {
#pragma omp critical
        error = std::current_exception();
      }
    }
    if (error) {
      std::rethrow_exception(error);
    }
    for (const Encoding& encoding : block) {
      out.add(encoding);
    }
  }
  if (!examples.labelled) {
    return out;
  }
  out.kind = examples.regression ? TextLabels::scores : TextLabels::classes;
  for (const TextExample& example : examples.examples) {
    if (examples.regression) {
      out.scores.push_back(static_cast<float>(example.score));
    } else {
      out.classes.push_back(example.label);
    }
  }
  return out;
}

TextSource::TextSource(std::shared_ptr<const EncodedTexts> texts, TextSourceOptions options)
    : texts_(std::move(texts)), options_(options) {
  check_option("max_length", options_.max_length, kMaxTokens);
  check_option("pad_multiple", options_.pad_multiple, kMaxTokens);
  const int64_t rows = texts_->rows();
  if (rows == 0) {
    throw UsageError("text", "no rows; name a file that has some");
  }
  const size_t labels = texts_->kind == TextLabels::classes  ? texts_->classes.size()
                        : texts_->kind == TextLabels::scores ? texts_->scores.size()
                        : texts_->kind == TextLabels::spans  ? texts_->spans.size()
                                                             : static_cast<size_t>(rows);
  if (static_cast<int64_t>(labels) != rows || texts_->ids.size() != texts_->types.size() ||
      static_cast<int64_t>(texts_->ids.size()) != texts_->offsets.back()) {
    throw UsageError("text", "{} rows, {} labels, {} ids and {} types; wanted as many of each",
                     rows, labels, texts_->ids.size(), texts_->types.size());
  }
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t length = texts_->length(row);
    if (length < 1 || length > options_.max_length) {
      throw UsageError("text", "row {} has {} tokens; wanted 1 to max_length {}", row, length,
                       options_.max_length);
    }
    if (texts_->kind == TextLabels::spans) {
      const auto [first, last] = texts_->spans[static_cast<size_t>(row)];
      if (first < 0 || first > last || last >= length) {
        throw UsageError("text",
                         "row {} of {} tokens has its answer at {} to {}; wanted both "
                         "inside, in order",
                         row, length, first, last);
      }
    }
  }
}

int64_t TextSource::padded_length(const Batch& batch) const {
  if (options_.padding == TextPadding::fixed) {
    return options_.max_length;
  }
  int64_t longest = 1;
  for (const int64_t row : batch.rows) {
    longest = std::max(longest, texts_->length(row));
  }
  const int64_t unit = options_.pad_multiple;
  return std::min((longest + unit - 1) / unit * unit, options_.max_length);
}

void TextSource::fill(Batch& batch) const {
  const int64_t tokens = padded_length(batch);
  const Inputs out(batch, tokens);
  const int64_t count = batch.count();
  const auto width = static_cast<size_t>(tokens);
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    const auto row = static_cast<size_t>(batch.rows[i]);
    const auto begin = static_cast<size_t>(texts_->offsets[row]);
    const auto length = static_cast<size_t>(texts_->offsets[row + 1]) - begin;
    for (size_t t = 0; t < width; ++t) {
      const bool token = t < length;
      out.ids[i * width + t] = token ? texts_->ids[begin + t] : options_.pad_id;
      out.types[i * width + t] = token ? texts_->types[begin + t] : 0;
      out.mask[i * width + t] = token;
    }
  }
  if (texts_->kind == TextLabels::classes) {
    const auto labels = int_labels(batch, {count});
    for (size_t i = 0; i < batch.rows.size(); ++i) {
      labels[i] = texts_->classes[static_cast<size_t>(batch.rows[i])];
    }
  } else if (texts_->kind == TextLabels::scores) {
    const auto labels = batch.field("labels", DType::f32, {count}).as<float>();
    for (size_t i = 0; i < batch.rows.size(); ++i) {
      labels[i] = texts_->scores[static_cast<size_t>(batch.rows[i])];
    }
  } else if (texts_->kind == TextLabels::spans) {
    const auto labels = int_labels(batch, {2, count});
    for (size_t i = 0; i < batch.rows.size(); ++i) {
      const auto& span = texts_->spans[static_cast<size_t>(batch.rows[i])];
      labels[i] = span[0];
      labels[batch.rows.size() + i] = span[1];
    }
  }
}

std::unique_ptr<BatchSource> make_synthetic_text(const SyntheticText& shape) {
  check_option("size", shape.size, int64_t{1} << 40);
  check_option("tokens", shape.tokens, kMaxTokens);
  check_option("vocabulary", shape.vocabulary, int64_t{1} << 31);
  check_option("classes", shape.classes, int64_t{1} << 31);
  return std::make_unique<SyntheticSource>(shape);
}

}  // namespace lithe
