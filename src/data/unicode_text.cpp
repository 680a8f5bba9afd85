#include "data/unicode_text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <span>

namespace lithe {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};

// Assigned or moved to Mn, P* or Cf after Unicode 8. Ranges run on over code points that were never
// of these categories, so that later versions of utf8proc change nothing either.
constexpr Range kCategoryAfterUnicode8[] = {
    {0x5c8, 0x5c9},     {0x61d, 0x61d},     {0x7fd, 0x7fd},     {0x890, 0x8e2},
    {0x9fd, 0x9fe},     {0xa76, 0xa76},     {0xafa, 0xaff},     {0xb53, 0xb55},
    {0xc04, 0xc3c},     {0xc77, 0xc77},     {0xc84, 0xc84},     {0xd00, 0xd00},
    {0xd3b, 0xd3c},     {0xd81, 0xd81},     {0xeba, 0xeba},     {0xece, 0xece},
    {0x180f, 0x1886},   {0x1abf, 0x1af0},   {0x1b4e, 0x1b4f},   {0x1b7d, 0x1b7f},
    {0x1df6, 0x1dfb},   {0x2e43, 0x2e63},   {0xa82c, 0xa82c},   {0xa8c5, 0xa8c5},
    {0xa8ff, 0xa8ff},   {0xa9bd, 0xa9bd},   {0x10d24, 0x10f89}, {0x11070, 0x11074},
    {0x110c2, 0x110cd}, {0x111cf, 0x111cf}, {0x1123e, 0x11241}, {0x1133b, 0x1133b},
    {0x113bb, 0x1145e}, {0x11660, 0x1166c}, {0x116b9, 0x116b9}, {0x1182f, 0x11fff},
    {0x12ff1, 0x1612f}, {0x16d6d, 0x16f4f}, {0x16fe2, 0x16fe4}, {0x1cf00, 0x1d128},
    {0x1d25b, 0x1d25c}, {0x1e000, 0x1e6f5}, {0x1e944, 0x1e95f},
};

// Got a combining class or a decomposition after Unicode 9.
constexpr Range kCompositionAfterUnicode9[] = {
    {0x5c8, 0x5c9},     {0x7fd, 0x7fd},     {0x897, 0x8d3},     {0x9fe, 0x9fe},
    {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},
    {0x1abf, 0x1af0},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},   {0x105c9, 0x105e4},
    {0x10d24, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x11383, 0x113d0},
    {0x1145e, 0x1145e}, {0x11839, 0x11a99}, {0x11d42, 0x1612f}, {0x16d68, 0x16ff1},
    {0x1d127, 0x1d128}, {0x1d250, 0x1d281}, {0x1e08f, 0x1e6f5},
};

// Upper-case letters of Unicode 16 and 17: first, last, and the lower case of the first.
struct CaseRange {
  char32_t first;
  char32_t last;
  char32_t lower;
};
constexpr CaseRange kLowerAfterUnicode15[] = {
    {0x1c89, 0x1c89, 0x1c8a},    {0xa7cb, 0xa7cb, 0x264},  {0xa7cc, 0xa7cc, 0xa7cd},
    {0xa7ce, 0xa7ce, 0xa7cf},    {0xa7d2, 0xa7d2, 0xa7d3}, {0xa7d4, 0xa7d4, 0xa7d5},
    {0xa7da, 0xa7da, 0xa7db},    {0xa7dc, 0xa7dc, 0x19b},  {0x10d50, 0x10d65, 0x10d70},
    {0x16ea0, 0x16eb8, 0x16ebb},
};

template <typename R>
const R* find_range(std::span<const R> ranges, char32_t point) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), point,
                                      [](char32_t p, const R& range) { return p < range.first; });
  if (after == ranges.begin() || point > (after - 1)->last) {
    return nullptr;
  }
  return &*(after - 1);
}

bool contains(std::span<const Range> ranges, char32_t point) {
  return find_range(ranges, point) != nullptr;
}

utf8proc_int32_t as_signed(char32_t point) { return static_cast<utf8proc_int32_t>(point); }

// Category, with the ones that Unicode 8 did not know yet as "unassigned".
utf8proc_category_t category_of_unicode_8(char32_t point) {
  // Moved to other categories since.
  switch (point) {
    case 0x1734:
    case 0x1171e:
      return UTF8PROC_CATEGORY_MN;
    case 0x166d:
    case 0x111c9:
      return UTF8PROC_CATEGORY_PO;
    default:
      break;
  }
  const utf8proc_category_t category = utf8proc_category(as_signed(point));
  switch (category) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return contains(kCategoryAfterUnicode8, point) ? UTF8PROC_CATEGORY_CN : category;
    default:
      return category;
  }
}

bool is_continuation(std::string_view text, size_t at, unsigned char low, unsigned char high) {
  const auto byte = static_cast<unsigned char>(text[at]);
  return byte >= low && byte <= high;
}

}  // namespace

CodePoint decode_utf8(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) {
    return {lead, 1, false};
  }
  int length = 0;
  char32_t value = 0;
  // The second byte's range leaves out overlong forms, surrogates and what is above U+10FFFF.
  unsigned char low = 0x80;
  unsigned char high = 0xbf;
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
    value = lead & 0x1fU;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    value = lead & 0x0fU;
    low = lead == 0xe0 ? 0xa0 : low;
    high = lead == 0xed ? 0x9f : high;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    value = lead & 0x07U;
    low = lead == 0xf0 ? 0x90 : low;
    high = lead == 0xf4 ? 0x8f : high;
  } else {
    return {kReplacementCharacter, 1, true};
  }
  for (int i = 1; i < length; ++i) {
    if (at + static_cast<size_t>(i) >= text.size() ||
        !is_continuation(text, at + static_cast<size_t>(i), low, high)) {
      return {kReplacementCharacter, i, true};
    }
    value = value << 6U | (static_cast<unsigned char>(text[at + static_cast<size_t>(i)]) & 0x3fU);
    low = 0x80;
    high = 0xbf;
  }
  return {value, length, false};
}

CodePoint decode_utf8_before(std::string_view text, size_t end) {
  for (size_t bytes = 1; bytes <= std::min<size_t>(4, end); ++bytes) {
    const CodePoint point = decode_utf8(text.substr(0, end), end - bytes);
    if (static_cast<size_t>(point.bytes) == bytes && !point.ill_formed) {
      return point;
    }
  }
  return {kReplacementCharacter, 1, true};
}

int utf8_size(char32_t point) {
  return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

void append_utf8(std::string& text, char32_t point) {
  const auto put = [&text](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  switch (utf8_size(point)) {
    case 1:
      put(point);
      break;
    case 2:
      put(0xc0U | point >> 6U);
      put(0x80U | (point & 0x3fU));
      break;
    case 3:
      put(0xe0U | point >> 12U);
      put(0x80U | (point >> 6U & 0x3fU));
      put(0x80U | (point & 0x3fU));
      break;
    default:
      put(0xf0U | point >> 18U);
      put(0x80U | (point >> 12U & 0x3fU));
      put(0x80U | (point >> 6U & 0x3fU));
      put(0x80U | (point & 0x3fU));
      break;
  }
}

size_t find_ill_formed(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = decode_utf8(text, at);
    if (point.ill_formed) {
      return at;
    }
    at += static_cast<size_t>(point.bytes);
  }
  return std::string_view::npos;
}

bool is_white_space(char32_t point) {
  return (point >= 0x9 && point <= 0xd) || point == 0x20 || point == 0x85 || point == 0xa0 ||
         point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x2028 ||
         point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}

bool is_other(char32_t point) {
  if (point < 0x80) {
    return point < 0x20 || point == 0x7f;
  }
  const utf8proc_category_t category = category_of_unicode_8(point);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
         category == UTF8PROC_CATEGORY_CO;
}

bool is_punctuation(char32_t point) {
  if (point < 0x80) {
    return (point >= 0x21 && point <= 0x2f) || (point >= 0x3a && point <= 0x40) ||
           (point >= 0x5b && point <= 0x60) || (point >= 0x7b && point <= 0x7e);
  }
  const utf8proc_category_t category = category_of_unicode_8(point);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_nonspacing_mark(char32_t point) {
  return point >= 0x300 && category_of_unicode_8(point) == UTF8PROC_CATEGORY_MN;
}

bool is_word_character(char32_t point) {
  switch (utf8proc_category(as_signed(point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      break;
  }
  // Alphabetic symbols (circled and squared letters), joiners.
  return (point >= 0x24b6 && point <= 0x24e9) || (point >= 0x1f130 && point <= 0x1f149) ||
         (point >= 0x1f150 && point <= 0x1f169) || (point >= 0x1f170 && point <= 0x1f189) ||
         point == 0x200c || point == 0x200d;
}

int combining_class(char32_t point) {
  if (point < 0x300 || contains(kCompositionAfterUnicode9, point)) {
    return 0;
  }
  return utf8proc_get_property(as_signed(point))->combining_class;
}

Mapping canonical_decomposition(char32_t point) {
  Mapping mapping;
  if (point >= 0xc0 && !contains(kCompositionAfterUnicode9, point)) {
    std::array<utf8proc_int32_t, 4> points{};
    int last_class = UTF8PROC_BOUNDCLASS_START;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        as_signed(point), points.data(), points.size(), UTF8PROC_DECOMPOSE, &last_class);
    if (count > 0 && count <= static_cast<utf8proc_ssize_t>(points.size())) {
      mapping.count = static_cast<int>(count);
      std::copy_n(points.begin(), count, mapping.points.begin());
      return mapping;
    }
  }
  mapping.points[0] = point;
  mapping.count = 1;
  return mapping;
}

Mapping lower_case(char32_t point) {
  Mapping mapping;
  mapping.count = 1;
  if (point < 0x80) {
    mapping.points[0] = point >= U'A' && point <= U'Z' ? point + 0x20 : point;
  } else if (point == 0x130) {  // the only one whose lower case has two: i and dot above
    mapping.points = {U'i', 0x307};
    mapping.count = 2;
  } else if (const CaseRange* range = find_range<CaseRange>(kLowerAfterUnicode15, point)) {
    mapping.points[0] = range->lower + (point - range->first);
  } else {
    mapping.points[0] = static_cast<char32_t>(utf8proc_tolower(as_signed(point)));
  }
  return mapping;
}

std::string in_quotes(std::string_view name) {
  constexpr size_t kMaxPoints = 60;
  std::string out = "'";
  size_t points = 0;
  for (size_t at = 0; at < name.size(); ++points) {
    if (points == kMaxPoints) {
      out += "...";
      break;
    }
    const CodePoint point = decode_utf8(name, at);
    // Control and formatting characters would act on the reader's terminal.
    if (is_other(point.value) || (is_white_space(point.value) && point.value != U' ')) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(point.value));
    } else {
      append_utf8(out, point.value);
    }
    at += static_cast<size_t>(point.bytes);
  }
  return out + "'";
}

}  // namespace lithe
