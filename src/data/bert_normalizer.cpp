#include "data/bert_normalizer.h"

#include <algorithm>
#include <array>

#include "data/unicode_text.h"

namespace lithe {
namespace {

// The blocks that BERT calls Chinese. 2B920 instead of 2B820 is the library's; models were trained
// with it.
bool is_chinese(char32_t point) {
  return (point >= 0x4e00 && point <= 0x9fff) || (point >= 0x3400 && point <= 0x4dbf) ||
         (point >= 0x20000 && point <= 0x2a6df) || (point >= 0x2a700 && point <= 0x2b81f) ||
         (point >= 0x2b920 && point <= 0x2ceaf) || (point >= 0xf900 && point <= 0xfaff) ||
         (point >= 0x2f800 && point <= 0x2fa1f);
}

// Takes the steps for one code point after the other; only runs of combining marks are held back,
// to be put into canonical order.
class Pipeline {
 public:
  Pipeline(const BertNormalizer& options, NormalizedText& out)
      : options_(options), strip_(options.strip_accents.value_or(options.lowercase)), out_(out) {}

  void ascii(char byte, TextSpan span) {
    if (options_.clean_text) {
      if (byte == '\t' || byte == '\n' || byte == '\r') {
        byte = ' ';
      } else if (static_cast<unsigned char>(byte) < 0x20 || byte == 0x7f) {
        return;
      }
    }
    if (options_.lowercase && byte >= 'A' && byte <= 'Z') {
      byte = static_cast<char>(byte - 'A' + 'a');
    }
    if (!marks_.empty()) {
      flush();
    }
    last_ = span;
    out_.text.push_back(byte);
    out_.spans.push_back(span);
  }

  void other(char32_t point, TextSpan span) {
    if (options_.clean_text) {
      if (is_white_space(point) && point != 0x85) {
        point = U' ';
      } else if (point == kReplacementCharacter || is_other(point)) {
        return;
      }
    }
    if (options_.handle_chinese_chars && is_chinese(point)) {
      accents(U' ', span);
      accents(point, span);
      accents(U' ', span);
    } else {
      accents(point, span);
    }
  }

  void flush() {
    std::stable_sort(marks_.begin(), marks_.end(),
                     [](const Mark& a, const Mark& b) { return a.combining < b.combining; });
    size_t next = 0;
    for (const Mark& mark : marks_) {
      if (mark.leads) {
        last_ = mark_spans_[next++];
      }
      unaccented(mark.point);
    }
    marks_.clear();
    mark_spans_.clear();
  }

 private:
  struct Mark {
    char32_t point = 0;
    int combining = 0;
    bool leads = false;  // first of its decomposition
  };

  void accents(char32_t point, TextSpan span) {
    if (!strip_) {
      last_ = span;
      lower(point);
      return;
    }
    const Mapping parts = canonical_decomposition(point);
    for (int i = 0; i < parts.count; ++i) {
      const char32_t part = parts.points[static_cast<size_t>(i)];
      const int combining = combining_class(part);
      if (combining == 0) {
        flush();
        last_ = i == 0 ? span : last_;
        unaccented(part);
        continue;
      }
      // Places are dealt out after sorting, in the order of the text: so the library does it.
      marks_.push_back({part, combining, i == 0});
      if (i == 0) {
        mark_spans_.push_back(span);
      }
    }
  }

  void unaccented(char32_t point) {
    if (!is_nonspacing_mark(point)) {
      lower(point);
    }
  }

  void lower(char32_t point) {
    if (!options_.lowercase) {
      write(point);
      return;
    }
    const Mapping parts = lower_case(point);
    for (int i = 0; i < parts.count; ++i) {
      write(parts.points[static_cast<size_t>(i)]);
    }
  }

  void write(char32_t point) {
    append_utf8(out_.text, point);
    out_.spans.resize(out_.text.size(), last_);
  }

  const BertNormalizer& options_;
  bool strip_;
  NormalizedText& out_;
  TextSpan last_;  // place of the code point written last
  std::vector<Mark> marks_;
  std::vector<TextSpan> mark_spans_;  // of the marks that lead
};

// What a code point is to the split into words.
enum class Kind : uint8_t { kLetter, kSpace, kPunctuation };

Kind kind_of(char32_t point) {
  return is_white_space(point)   ? Kind::kSpace
         : is_punctuation(point) ? Kind::kPunctuation
                                 : Kind::kLetter;
}

const std::array<Kind, 128> kAsciiKinds = [] {
  std::array<Kind, 128> kinds{};
  for (char32_t point = 0; point < 128; ++point) {
    kinds[point] = kind_of(point);
  }
  return kinds;
}();

}  // namespace

void normalize(std::string_view text, int32_t shift, const BertNormalizer& options,
               NormalizedText& out) {
  out.text.clear();
  out.spans.clear();
  out.text.reserve(text.size());
  out.spans.reserve(text.size());
  Pipeline pipeline(options, out);
  for (size_t at = 0; at < text.size();) {
    const int32_t begin = shift + static_cast<int32_t>(at);
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      pipeline.ascii(text[at], {begin, begin + 1});
      ++at;
      continue;
    }
    const CodePoint point = decode_utf8(text, at);
    pipeline.other(point.value, {begin, begin + point.bytes});
    at += static_cast<size_t>(point.bytes);
  }
  pipeline.flush();
}

WordRange next_word(std::string_view text, size_t at, size_t end) {
  const std::string_view part = text.substr(0, end);
  WordRange word{end, end};
  while (at < end) {
    const auto byte = static_cast<unsigned char>(part[at]);
    Kind kind = Kind::kLetter;
    size_t bytes = 1;
    if (byte < 0x80) {
      kind = kAsciiKinds[byte];
    } else {
      const CodePoint point = decode_utf8(part, at);
      kind = kind_of(point.value);
      bytes = static_cast<size_t>(point.bytes);
    }
    if (kind != Kind::kLetter) {
      if (word.begin != end) {
        break;
      }
      if (kind == Kind::kPunctuation) {
        return {at, at + bytes};
      }
      at += bytes;
      continue;
    }
    word.begin = std::min(word.begin, at);
    at += bytes;
    word.end = at;
  }
  return word;
}

}  // namespace lithe
