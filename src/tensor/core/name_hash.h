// A number for a name (FNV-1a), stable across machines and builds, unlike std::hash: the Philox
// stream of a parameter's initial values and of a dropout site.
#pragma once

#include <cstdint>
#include <string_view>

namespace lithe {

constexpr uint64_t name_hash(std::string_view name) {
  uint64_t h = 1469598103934665603ull;
  for (char c : name) {
    h = (h ^ static_cast<uint8_t>(c)) * 1099511628211ull;
  }
  return h;
}

}  // namespace lithe
