#include "data/tokenizer.h"

#include <algorithm>
#include <utility>

#include "tensor/core/error.h"

namespace lithe {
namespace {

void keep(Tokens& tokens, int64_t count) {
  tokens.ids.resize(static_cast<size_t>(count));
  tokens.spans.resize(static_cast<size_t>(count));
}

int64_t size_of(const Tokens& tokens) { return static_cast<int64_t>(tokens.ids.size()); }

// What is left of each text: the shorter one loses nothing before the longer one is as short.
std::pair<int64_t, int64_t> longest_first(int64_t first, int64_t second, int64_t budget) {
  const int64_t shorter = std::min({first, second, budget / 2});
  return first > second ? std::pair(budget - shorter, shorter)
                        : std::pair(shorter, budget - shorter);
}

}  // namespace

void truncate(Tokens& first, Tokens* second, int64_t budget, Truncation truncation) {
  const int64_t first_count = size_of(first);
  const int64_t second_count = second != nullptr ? size_of(*second) : 0;
  const int64_t excess = first_count + second_count - budget;
  if (excess <= 0) {
    return;
  }
  if (budget < 0 || truncation == Truncation::none) {
    throw UsageError("tokenizer",
                     "{} tokens, {} are allowed beside the special ones; raise the maximum length "
                     "or choose a truncation",
                     first_count + second_count, budget);
  }
  if (budget == 0) {
    keep(first, 0);
    if (second != nullptr) {
      keep(*second, 0);
    }
    return;
  }
  if (truncation == Truncation::longest_first) {
    if (second == nullptr) {
      keep(first, budget);
      return;
    }
    const auto [first_kept, second_kept] = longest_first(first_count, second_count, budget);
    keep(first, first_kept);
    keep(*second, second_kept);
    return;
  }
  Tokens* cut = truncation == Truncation::only_first ? &first : second;
  if (cut == nullptr) {
    throw UsageError("tokenizer",
                     "{} tokens, {} are allowed, and the truncation only_second was chosen for a "
                     "single text; use only_first or longest_first",
                     first_count, budget);
  }
  if (size_of(*cut) <= excess) {
    throw UsageError("tokenizer",
                     "texts of {} and {} tokens, {} are allowed, and cutting the {} text alone "
                     "would leave nothing of it; raise the maximum length or use longest_first",
                     first_count, second_count, budget, cut == &first ? "first" : "second");
  }
  keep(*cut, size_of(*cut) - excess);
}

Encoding Tokenizer::encode(std::string_view first, std::optional<std::string_view> second,
                           int64_t max_length, Truncation truncation) const {
  const int64_t special = special_count(second.has_value());
  if (max_length < 0 || (max_length > 0 && max_length < special)) {
    throw UsageError("tokenizer",
                     "a maximum length of {} tokens, the special tokens alone are {}; raise it",
                     max_length, special);
  }
  Tokens first_tokens = tokenize(first);
  Tokens second_tokens;
  Tokens* second_given = nullptr;
  if (second.has_value()) {
    second_tokens = tokenize(*second);
    second_given = &second_tokens;
  }
  if (max_length > 0) {
    truncate(first_tokens, second_given, max_length - special, truncation);
  }
  return join(first_tokens, second_given);
}

}  // namespace lithe
