// Encoded texts as batches: "input_ids" and "token_type_ids" int64 [B, T], "attention_mask" bool
// [B, T] (true: a token, false: padding) and "labels", where there are any: int64 [B] for classes,
// fp32 [B] for regression, int64 [2, B] for spans (first and last token of each row).
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "data/batch.h"
#include "data/text_examples.h"
#include "data/tokenizer.h"

namespace lithe {

enum class TextLabels : uint8_t { none, classes, scores, spans };

// Rows of tokens one after another: row r is [offsets[r], offsets[r + 1]).
struct EncodedTexts {
  std::vector<int32_t> ids;
  std::vector<int8_t> types;
  std::vector<int64_t> offsets{0};

  TextLabels kind = TextLabels::none;
  std::vector<int64_t> classes;  // by row, of the kind that `kind` names
  std::vector<float> scores;
  std::vector<std::array<int32_t, 2>> spans;

  int64_t rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t length(int64_t row) const {
    return offsets[static_cast<size_t>(row) + 1] - offsets[static_cast<size_t>(row)];
  }
  // Appends a row without its label.
  void add(const Encoding& encoding);
};

// Each example as tokenizer.encode() gives it.
EncodedTexts encode_examples(const TextExamples& examples, const Tokenizer& tokenizer,
                             int64_t max_length, Truncation truncation = Truncation::longest_first);

enum class TextPadding : uint8_t {
  longest,  // to the longest row of the batch, rounded up to pad_multiple
  fixed,    // to max_length
};

struct TextSourceOptions {
  int64_t max_length = 128;  // no batch is longer
  TextPadding padding = TextPadding::longest;
  int64_t pad_multiple = 8;
  int32_t pad_id = 0;
};

class TextSource final : public BatchSource {
 public:
  // Throws UsageError for options out of range, no rows, a row that is empty or above max_length,
  // labels that are not one a row, a span outside its row.
  TextSource(std::shared_ptr<const EncodedTexts> texts, TextSourceOptions options);

  int64_t size() const override { return texts_->rows(); }
  int64_t length(int64_t row) const override { return texts_->length(row); }
  void fill(Batch& batch) const override;

  const EncodedTexts& texts() const { return *texts_; }

 private:
  int64_t padded_length(const Batch& batch) const;

  std::shared_ptr<const EncodedTexts> texts_;
  TextSourceOptions options_;
};

struct SyntheticText {
  int64_t size = 0;
  int64_t tokens = 0;  // of every row; nothing is padding
  int64_t vocabulary = 0;
  TextLabels labels = TextLabels::classes;
  int64_t classes = 2;
  uint64_t seed = 0;
};

// Random ids and labels that need no file: for memory and speed runs. A row is a pure function of
// (seed, row). Throws UsageError for sizes that are not positive.
std::unique_ptr<BatchSource> make_synthetic_text(const SyntheticText& shape);

}  // namespace lithe
