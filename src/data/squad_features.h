// Questions about long contexts as model inputs: [CLS] question [SEP] window of the context [SEP].
// Windows of one question overlap, so that an answer that one of them cuts is whole in another.
#pragma once

#include "data/squad.h"
#include "data/text_source.h"

namespace lithe {

struct SquadFeatureOptions {
  int64_t max_length = 384;  // tokens of a row
  int64_t stride = 128;      // tokens that neighbouring windows share
  // Keeps the context bytes of each token, for decoding.
  bool keep_spans = false;
};

struct SquadWindow {
  int64_t question = 0;       // of SquadData::questions
  int32_t context_begin = 0;  // tokens of the row that are context: [begin, end)
  int32_t context_end = 0;
};

struct SquadFeatures {
  // Labels are spans: first and last token of the question's first answer; (0, 0), the position of
  // [CLS], where it has none or the window does not hold all of it.
  EncodedTexts texts;
  std::vector<SquadWindow> windows;  // by row; those of one question together, in order
  std::vector<TextSpan> spans;       // as texts.ids, with keep_spans; {0, 0} outside the context
};

// Throws UsageError for options out of range, FileError for a question so long that a window has no
// more context than the stride.
SquadFeatures squad_features(const SquadData& data, const Tokenizer& tokenizer,
                             const SquadFeatureOptions& options);

}  // namespace lithe
