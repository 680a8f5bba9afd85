// Text to token ids. A tokenizer is read from a model's own files, so that ids, special tokens and
// offsets are those of the library that trained it.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lithe {

// Bytes [begin, end) of the text that a token stands for.
struct TextSpan {
  int32_t begin = 0;
  int32_t end = 0;
  bool operator==(const TextSpan&) const = default;
};

// Tokens of one text, without special ones.
struct Tokens {
  std::vector<int32_t> ids;
  std::vector<TextSpan> spans;  // of the text as given
};

// What a model is fed: special tokens included, no padding.
struct Encoding {
  std::vector<int32_t> ids;
  std::vector<int32_t> type_ids;  // segment: 0 first text, 1 second
  std::vector<int8_t> sequence;   // which text a token is of: 0, 1, or -1 for a special token
  std::vector<TextSpan> spans;    // of that text; {0, 0} for special tokens
};

// Tokens go from the end of a text. All three empty both texts where there is room for no token at
// all; a strategy of one text throws UsageError where that text would have to go as a whole.
enum class Truncation : uint8_t {
  // From the longer text until both are of one length, then from both; of an odd number of tokens
  // that are left, the one more is of the text that was longer (of the second when equal).
  longest_first,
  only_first,
  only_second,
  none,  // too long is an error
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual int64_t vocabulary_size() const = 0;
  virtual int32_t pad_id() const = 0;
  // Tokens that join() adds to one text, or to a pair.
  virtual int64_t special_count(bool pair) const = 0;
  // Any bytes are accepted; what is not UTF-8 reads as U+FFFD.
  virtual Tokens tokenize(std::string_view text) const = 0;
  // Adds the special tokens; `second` may be null.
  virtual Encoding join(const Tokens& first, const Tokens* second) const = 0;

  // Tokenizes, truncates to `max_length` tokens in all (0: no limit) and joins. Throws UsageError
  // where the strategy cannot reach max_length.
  Encoding encode(std::string_view first, std::optional<std::string_view> second,
                  int64_t max_length, Truncation truncation) const;
};

// Cuts both (second may be null) so that they hold `budget` tokens together. Throws UsageError
// where the strategy cannot.
void truncate(Tokens& first, Tokens* second, int64_t budget, Truncation truncation);

// From tokenizer.json or else vocab.txt of a model folder, or from such a file itself. A
// tokenizer_config.json beside it, where there is one, gives do_lower_case, strip_accents,
// tokenize_chinese_chars and the names of special tokens. Truncation and padding saved in
// tokenizer.json are ignored. Throws FileError, naming the file and what is wrong or unsupported.
std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& path);

}  // namespace lithe
