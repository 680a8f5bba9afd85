// Tables for a terminal.
#pragma once

#include <string>
#include <vector>

namespace lithe {

enum class Align { kLeft, kRight };

// Aligned columns, two spaces apart and indented by two, without trailing blanks; one line a row.
// The first row is the heading; every row has as many cells as `align`.
std::string align_columns(const std::vector<std::vector<std::string>>& rows,
                          const std::vector<Align>& align);

// Control characters as '?': names come from files and must not steer the terminal.
std::string printable(const std::string& text);

// The first code points of UTF-8 text, with "…" as the last of `width` where some are left out.
std::string shortened(const std::string& text, int width);

}  // namespace lithe
