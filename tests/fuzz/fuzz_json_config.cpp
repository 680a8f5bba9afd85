// Any bytes as a config.json: a model declares its weights and writes the same config back, or an
// Error says why not. No graph is built.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "nn/model_kinds.h"
#include "tensor/core/error.h"

namespace {

constexpr int kDeepest = 64;     // as of the reader of config.json
constexpr int64_t kBlocks = 64;  // many blocks take time and show nothing new

nlohmann::json parse(const uint8_t* data, size_t size) {
  bool deep = false;
  const auto shallow = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    deep = deep || depth > kDeepest;
    return !deep;
  };
  nlohmann::json json = nlohmann::json::parse(data, data + size, shallow, false);
  return deep ? nlohmann::json() : json;
}

bool has_many_blocks(const nlohmann::json& config) {
  const auto blocks = config.is_object() ? config.find("num_hidden_layers") : config.end();
  return blocks != config.end() && blocks->is_number() && blocks->get<double>() > kBlocks;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const nlohmann::json config = parse(data, size);
  if (config.is_discarded() || has_many_blocks(config)) {
    return 0;
  }
  lithe::SlotTable slots;
  std::unique_ptr<lithe::nn::Model> model;
  try {
    model = lithe::nn::make_model(slots, config);
  } catch (const lithe::Error&) {
    return 0;
  }
  // Not caught: what a model says of itself makes the same model again.
  const nlohmann::json written = model->config();
  lithe::SlotTable again;
  const auto copy = lithe::nn::make_model(again, written);
  if (copy->config() != written || again.size() != slots.size()) {
    std::abort();
  }
  for (lithe::SlotId s = 0; s < slots.size(); ++s) {
    if (again[s].name != slots[s].name || again[s].shape != slots[s].shape) {
      std::abort();
    }
  }
  return 0;
}
