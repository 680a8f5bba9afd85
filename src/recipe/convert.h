// One YAML value to its option's type.
#pragma once

#include "recipe/document.h"
#include "recipe/schema.h"

namespace lithe::recipe {

// monostate for null where the option may have no value. Strings come unexpanded. UsageError with
// place, key, what was found and what is wanted.
Default convert(const Option& option, const Node& node, const Source& source);

// true/on/yes, false/off/no in any letter case; nothing for other text and for quoted text.
std::optional<bool> as_boolean(const Node& node);

// "a mapping", "text 'abc'", ...: what a message says it found.
std::string describe(const Node& node);

}  // namespace lithe::recipe
