// Closest names, for messages that end with "did you mean ...".
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace lithe::recipe {

// Edits (insert, delete, replace, swap of neighbours) that turn one text into the other, letter
// case ignored. Texts over 128 bytes are not compared and count as infinitely far: the cost is the
// product of the lengths, and a hostile recipe chooses one of them.
size_t edit_distance(std::string_view from, std::string_view to);

// Edits beyond which a name of this length is no longer a likely misspelling.
size_t edit_limit(std::string_view name);

// The name nearest to `name`, or "" when none is near.
std::string nearest_name(std::string_view name, std::span<const std::string> known);

}  // namespace lithe::recipe
