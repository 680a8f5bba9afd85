// What a recipe's codec.edges say of saved values: which, and in what format.
#pragma once

#include <string>

#include "compress/codec_format.h"
#include "compress/saved_values.h"

namespace lithe {

// "ROLE:CODEC", "ROLE@GLOB:CODEC" or "GLOB:CODEC".
struct CodecRule {
  // Throws UsageError with what there is.
  CodecRule(const std::string& text, const CodecFormat::Options& options);

  bool chooses(const Graph& graph, const SavedValue& value) const;
  // A frozen norm's output is kept in the place of its input.
  bool normalizes() const { return roles == saved_role::kFrozenNormOutput; }

  std::string selector;
  uint32_t roles = ~uint32_t{0};
  std::string pattern = "*";  // of the value's name
  CodecFormat format;
};

}  // namespace lithe
