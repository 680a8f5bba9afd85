// What an adapter of the kind `lora` is, as recipes and PEFT's adapter_config.json say it.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lithe {

struct LoraConfig {
  int64_t rank = 8;
  double alpha = 16;
  double dropout = 0;
  bool rslora = false;  // alpha / sqrt(rank) (arXiv 2312.03732) instead of alpha / rank
  // Which biases of the model are trained: "none", "all", or "lora_only", those of adapted layers.
  std::string bias = "none";
  std::vector<std::string> target;  // patterns of linear layers (adapter_sites.h)
  // Patterns of modules that are trained in full; absent: the model's head.
  std::optional<std::vector<std::string>> modules_to_save;

  double scale() const {
    const auto r = static_cast<double>(rank);
    return alpha / (rslora ? std::sqrt(r) : r);
  }
};

}  // namespace lithe
