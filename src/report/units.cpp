#include "report/units.h"

#include <fmt/format.h>

#include <cmath>

namespace lithe {

std::string format_bytes(int64_t bytes) {
  const double magnitude = std::abs(static_cast<double>(bytes));
  if (magnitude < 1024) {
    return fmt::format("{} B", bytes);
  }
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  int unit = 0;
  // 1023.995 would print as 1024.00, so the next unit begins where the rounding does.
  while (std::abs(value) >= 1023.995 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string format_mebibytes(int64_t bytes) {
  return fmt::format("{:.2f} MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e12) {
    return "?";
  }
  if (seconds < 9.95) {
    return seconds < 0.995 ? fmt::format("{:.2f}s", seconds) : fmt::format("{:.1f}s", seconds);
  }
  const int64_t whole = std::llround(seconds);
  if (whole < 60) {
    return fmt::format("{}s", whole);
  }
  if (whole < 3600) {
    return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  }
  const int64_t minutes = std::llround(seconds / 60);
  if (minutes < 24 * 60) {
    return fmt::format("{}h{:02}m", minutes / 60, minutes % 60);
  }
  const int64_t hours = std::llround(seconds / 3600);
  return fmt::format("{}d{:02}h", hours / 24, hours % 24);
}

std::string format_number(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  const double magnitude = std::abs(value);
  if (magnitude >= 999.95 && magnitude < 1e7) {
    return fmt::format("{:.0f}", value);
  }
  std::string text = fmt::format("{:.4g}", value);
  const size_t e = text.find('e');
  if (e != std::string::npos) {
    size_t digit = e + 2;  // past the sign
    while (digit + 1 < text.size() && text[digit] == '0') {
      text.erase(digit, 1);
    }
    if (text[e + 1] == '+') {
      text.erase(e + 1, 1);
    }
  }
  return text;
}

std::string format_count(double count) {
  const double magnitude = std::abs(count);
  if (!std::isfinite(count) || magnitude < 9999.5) {
    return format_number(count);
  }
  constexpr const char* kSuffix[] = {"k", "M", "G", "T", "P"};
  double value = count / 1000;
  int unit = 0;
  while (std::abs(value) >= 999.95 && unit < 4) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.4g}{}", value, kSuffix[unit]);
}

std::string format_share(int64_t part, int64_t whole) {
  if (whole == 0) {
    return "–";
  }
  return fmt::format("{:.1f} %", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

int display_width(const std::string& text) {
  int width = 0;
  for (const char c : text) {
    width += (static_cast<unsigned char>(c) & 0xC0u) != 0x80u ? 1 : 0;
  }
  return width;
}

}  // namespace lithe
