// Glob patterns over dotted names, as recipes write them.
#pragma once

#include <string_view>

namespace lithe {

// '*' matches any run of characters (dots too), '?' one character.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace lithe
