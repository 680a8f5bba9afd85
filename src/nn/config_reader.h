// Checked reading of a Hugging Face config.json: a field that is absent keeps its default, one of
// the wrong type or out of range is refused by name. Config files are hostile until checked.
#pragma once

#include <cstdint>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "tensor/ops/activation.h"

namespace lithe::nn {

class ConfigReader {
 public:
  // Throws FileError when `config` is no JSON object. Keeps a reference.
  explicit ConfigReader(const nlohmann::json& config);

  void size(std::string_view key, int64_t& value,
            int64_t largest = 1 << 24) const;                   // integer in [1, largest]
  void probability(std::string_view key, double& value) const;  // number in [0, 1)
  void positive(std::string_view key, double& value) const;     // finite number > 0
  void flag(std::string_view key, bool& value) const;
  void activation(std::string_view key, Activation& value) const;
  // "num_labels", or the size of "id2label", or `fallback`; at most 2^20.
  int64_t label_count(int64_t fallback) const;

 private:
  const nlohmann::json* find(std::string_view key) const;  // nullptr: absent or null
  const nlohmann::json& config_;
};

}  // namespace lithe::nn
