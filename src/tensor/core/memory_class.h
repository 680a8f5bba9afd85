// The classes every claim about memory names.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace lithe {

enum class MemoryClass : uint8_t {
  weights,
  gradients,
  optimizer,
  saved_activations,
  temporaries,
  workspace,
  kv_cache,
  adapters,
  communication,
  context,
};
inline constexpr int kMemoryClassCount = 10;

// Bytes by class, indexed by the enumerator.
using MemoryByClass = std::array<int64_t, kMemoryClassCount>;

// The key of the class in JSON files and tables.
constexpr std::string_view memory_class_name(MemoryClass cls) {
  constexpr std::string_view kNames[kMemoryClassCount] = {
      "weights",   "gradients", "optimizer", "saved_activations", "temporaries",
      "workspace", "kv_cache",  "adapters",  "communication",     "context"};
  return kNames[static_cast<int>(cls)];
}

// The class of a JSON key, or nothing.
constexpr std::optional<MemoryClass> memory_class_from_name(std::string_view name) {
  for (int i = 0; i < kMemoryClassCount; ++i) {
    if (memory_class_name(static_cast<MemoryClass>(i)) == name) {
      return static_cast<MemoryClass>(i);
    }
  }
  return std::nullopt;
}

}  // namespace lithe
