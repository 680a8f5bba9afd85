// Reads what tests/reference/make_tokenizer_golden.py wrote.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "data/unicode_text.h"
#include "tensor/core/whole_file.h"

namespace lithe {

class GoldenReader {
 public:
  explicit GoldenReader(const std::filesystem::path& path) : bytes_(read_whole_file(path)) {
    if (!bytes_.starts_with("LTKG\x01")) {
      throw std::runtime_error(path.string() + " is no golden file of the tokenizer");
    }
    at_ = 5;
  }

  int64_t number() {
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_.at(at_++));
      value |= static_cast<uint64_t>(byte & 0x7fU) << shift;
      if (byte < 0x80) {
        return static_cast<int64_t>(value);
      }
    }
  }
  int64_t signed_number() {
    const int64_t value = number();
    return value % 2 == 0 ? value / 2 : -(value / 2) - 1;
  }
  std::string blob() {
    const auto count = static_cast<size_t>(number());
    std::string part = bytes_.substr(at_, count);
    at_ += count;
    return part;
  }
  std::vector<TextSpan> spans(int64_t count) {
    std::vector<TextSpan> spans;
    int64_t end = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = end + signed_number();
      end = begin + signed_number();
      spans.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(end)});
    }
    return spans;
  }
  bool at_end() const { return at_ == bytes_.size(); }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

// The library counts code points where Lithe counts bytes.
inline std::vector<int32_t> code_point_positions(std::string_view text) {
  std::vector<int32_t> positions(text.size() + 1, -1);  // -1: inside of a code point
  int32_t count = 0;
  size_t at = 0;
  while (at < text.size()) {
    positions[at] = count++;
    at += static_cast<size_t>(decode_utf8(text, at).bytes);
  }
  positions[at] = count;
  return positions;
}

inline TextSpan in_code_points(TextSpan span, const std::vector<int32_t>& positions) {
  return {positions.at(static_cast<size_t>(span.begin)),
          positions.at(static_cast<size_t>(span.end))};
}

// The tokenizer.json of a golden file holds no vocabulary, which all of them share.
inline std::string with_vocabulary(const std::string& tokenizer_json, std::string_view vocab_txt) {
  nlohmann::json tree = nlohmann::json::parse(tokenizer_json);
  nlohmann::json& vocabulary = tree["model"]["vocab"];
  size_t begin = 0;
  while (begin < vocab_txt.size()) {
    const size_t end = vocab_txt.find('\n', begin);
    vocabulary[std::string(vocab_txt.substr(begin, end - begin))] = vocabulary.size();
    begin = end + 1;
  }
  return tree.dump();
}

}  // namespace lithe
