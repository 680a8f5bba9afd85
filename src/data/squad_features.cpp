#include "data/squad_features.h"

#include <algorithm>

#include "data/unicode_text.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

Tokens slice(const Tokens& tokens, size_t begin, size_t end) {
  const auto from = static_cast<ptrdiff_t>(begin);
  const auto to = static_cast<ptrdiff_t>(end);
  return {{tokens.ids.begin() + from, tokens.ids.begin() + to},
          {tokens.spans.begin() + from, tokens.spans.begin() + to}};
}

// First and last token of the window that cover the answer's bytes, as positions of the row.
std::array<int32_t, 2> answer_tokens(const Encoding& row, const SquadWindow& window,
                                     const SquadQuestion& question) {
  if (question.answers.empty()) {
    return {0, 0};
  }
  const SquadAnswer& answer = question.answers.front();
  const int64_t begin = answer.begin;
  const int64_t end = begin + static_cast<int64_t>(answer.text.size());
  const auto span = [&](int32_t token) { return row.spans[static_cast<size_t>(token)]; };
  int32_t first = window.context_begin;
  int32_t last = window.context_end - 1;
  if (span(first).begin > begin || span(last).end < end) {
    return {0, 0};
  }
  while (first < last && span(first + 1).begin <= begin) {
    ++first;
  }
  while (last > first && span(last - 1).end >= end) {
    --last;
  }
  return {first, last};
}

}  // namespace

SquadFeatures squad_features(const SquadData& data, const Tokenizer& tokenizer,
                             const SquadFeatureOptions& options) {
  const int64_t special = tokenizer.special_count(true);
  if (options.stride < 0 || options.max_length <= special + options.stride) {
    throw UsageError("squad",
                     "max_length {} and stride {}; wanted a stride >= 0 and more tokens "
                     "than stride and the {} special ones",
                     options.max_length, options.stride, special);
  }
  SquadFeatures out;
  out.texts.kind = TextLabels::spans;
  int64_t tokenized = -1;
  Tokens context;
  for (size_t i = 0; i < data.questions.size(); ++i) {
    const SquadQuestion& question = data.questions[i];
    if (question.context != tokenized) {
      tokenized = question.context;
      context = tokenizer.tokenize(data.contexts[static_cast<size_t>(tokenized)].text);
    }
    const Tokens asked = tokenizer.tokenize(question.text);
    const int64_t budget = options.max_length - special - static_cast<int64_t>(asked.ids.size());
    if (budget <= options.stride) {
      throw FileError("squad",
                      "question {} has {} tokens, which leaves {} of max_length {} to "
                      "the context, with a stride of {}; raise max_length or lower stride",
                      in_quotes(question.id), asked.ids.size(), std::max<int64_t>(budget, 0),
                      options.max_length, options.stride);
    }
    const size_t total = context.ids.size();
    const auto size = static_cast<size_t>(budget);
    const auto step = static_cast<size_t>(budget - options.stride);
    for (size_t begin = 0;; begin += step) {
      const size_t end = std::min(begin + size, total);
      const Tokens part = slice(context, begin, end);
      const Encoding row = tokenizer.join(asked, &part);
      SquadWindow window;
      window.question = static_cast<int64_t>(i);
      const auto at = std::find(row.sequence.begin(), row.sequence.end(), int8_t{1});
      window.context_begin = static_cast<int32_t>(at - row.sequence.begin());
      window.context_end = window.context_begin + static_cast<int32_t>(end - begin);
      out.texts.add(row);
      out.texts.spans.push_back(end > begin ? answer_tokens(row, window, question)
                                            : std::array<int32_t, 2>{0, 0});
      out.windows.push_back(window);
      if (options.keep_spans) {
        for (int32_t token = 0; token < static_cast<int32_t>(row.ids.size()); ++token) {
          const bool inside = token >= window.context_begin && token < window.context_end;
          out.spans.push_back(inside ? row.spans[static_cast<size_t>(token)] : TextSpan{});
        }
      }
      if (end == total) {
        break;
      }
    }
  }
  return out;
}

}  // namespace lithe
