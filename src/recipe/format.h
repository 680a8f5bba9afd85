// How values and options are written: in YAML, in messages, in help.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "recipe/schema.h"

namespace lithe::recipe {

// Shortest text that reads back as the same double, always with a point, so that every YAML reader
// takes it for a number: "1.0e-05".
std::string number_text(double value);

// A scalar or flow list that reads back as the same value under its option's type; monostate is "".
std::string yaml_text(const Default& value);

// Text of a message: cut to a line, control characters written as escapes.
std::string excerpt(std::string_view text);

// "0 to 1", "at least 0", "adamw, sgd" or "".
std::string range_text(const Option& option);

// Why `value` breaks the option's range or choices ("2 is above ..."), if it does.
std::optional<std::string> violation(const Option& option, const Default& value);

}  // namespace lithe::recipe
