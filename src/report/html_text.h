// Text that came from files or names, made safe for a page.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace lithe {

// For element content and quoted attributes: & < > " ' escaped, bytes that are no UTF-8 and control
// characters other than tab and newline replaced by U+FFFD.
std::string escape_html(std::string_view text);

// For a <script type="application/json"> element: no "<", ">" or "&" stays that could end it.
std::string json_for_script(const nlohmann::ordered_json& json);

}  // namespace lithe
