// Checked reading of a Hugging Face config.json: a field that is absent keeps its default, one of
// the wrong type or out of range is refused by name. Config files are hostile until checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "tensor/ops/activation.h"

namespace lithe::nn {

// What a classifier's outputs mean.
struct Labels {
  int64_t count = 0;
  std::vector<std::string> names;  // of all, or none: then "LABEL_0", "LABEL_1", ...
};
// Adds "id2label" and "label2id".
void write_labels(nlohmann::json& config, const Labels& labels);

// The object in a config.json or its like, in the folder that the recipe's `key` names. Throws
// FileError for what is unreadable, over 1 MiB, nested deeply, or no object.
nlohmann::json read_config(const std::filesystem::path& file, std::string_view key);

class ConfigReader {
 public:
  // Throws FileError when `config` is no JSON object. Keeps a reference.
  explicit ConfigReader(const nlohmann::json& config);

  void size(std::string_view key, int64_t& value,
            int64_t largest = 1 << 24) const;                            // integer in [1, largest]
  void index(std::string_view key, int64_t& value, int64_t size) const;  // integer in [0, size)
  void probability(std::string_view key, double& value) const;           // number in [0, 1)
  void positive(std::string_view key, double& value) const;              // finite number > 0
  void flag(std::string_view key, bool& value) const;
  void activation(std::string_view key, Activation& value) const;
  void text(std::string_view key, std::string& value) const;
  // The one text, or the first of a list.
  void first_text(std::string_view key, std::string& value) const;
  // "num_labels", or the size of "id2label", or `fallback`; at most 2^16. Names come from
  // "id2label" where it has as many.
  Labels labels(int64_t fallback) const;

 private:
  const nlohmann::json* find(std::string_view key) const;  // nullptr: absent or null
  const nlohmann::json& config_;
};

}  // namespace lithe::nn
