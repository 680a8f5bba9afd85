// The environment in string and path values.
#pragma once

#include <string>

namespace lithe::recipe {

// ${VAR} and ${VAR:-fallback} (the fallback where VAR is unset or empty; it may hold further
// variables), then a leading "~" or "~/" as $HOME. "$${" is a literal "${"; any other "$" stands
// for itself. UsageError starting with `where` for an unset variable without a fallback and for
// malformed text.
std::string expand(const std::string& text, const std::string& where);

}  // namespace lithe::recipe
