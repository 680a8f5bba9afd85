#include "report/text_table.h"

#include <algorithm>

#include "report/units.h"

namespace lithe {

std::string printable(const std::string& text) {
  std::string out = text;
  std::replace_if(
      out.begin(), out.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return out;
}

std::string shortened(const std::string& text, int width) {
  if (display_width(text) <= width) {
    return text;
  }
  size_t end = 0;
  for (int seen = 0; end < text.size(); ++end) {
    seen += (static_cast<unsigned char>(text[end]) & 0xC0u) != 0x80u ? 1 : 0;
    if (seen == width) {
      break;
    }
  }
  return text.substr(0, end) + "…";
}

std::string align_columns(const std::vector<std::vector<std::string>>& rows,
                          const std::vector<Align>& align) {
  std::vector<int> width(align.size(), 0);
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) {
      width[c] = std::max(width[c], display_width(row[c]));
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string blank(static_cast<size_t>(width[c] - display_width(row[c])), ' ');
      line += "  ";
      line += align[c] == Align::kLeft ? row[c] + blank : blank + row[c];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace lithe
