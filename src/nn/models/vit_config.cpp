#include <nlohmann/json.hpp>

#include "nn/config_reader.h"
#include "nn/models/vit.h"

namespace lithe::nn {
namespace {

// Building a graph costs time and memory a block, before anything is known to fit.
constexpr int64_t kMostBlocks = 1024;

}  // namespace

ViTConfig ViTConfig::from_json(const nlohmann::json& config) {
  ViTConfig c;
  const ConfigReader read(config);
  read.size("hidden_size", c.hidden_size);
  read.size("num_hidden_layers", c.num_hidden_layers, kMostBlocks);
  read.size("num_attention_heads", c.num_attention_heads);
  read.size("intermediate_size", c.intermediate_size);
  read.activation("hidden_act", c.hidden_act);
  read.probability("hidden_dropout_prob", c.hidden_dropout_prob);
  read.probability("attention_probs_dropout_prob", c.attention_probs_dropout_prob);
  read.positive("initializer_range", c.initializer_range);
  read.positive("layer_norm_eps", c.layer_norm_eps);
  read.size("image_size", c.image_size);
  read.size("patch_size", c.patch_size);
  read.size("num_channels", c.num_channels);
  read.flag("qkv_bias", c.qkv_bias);
  c.labels = read.labels(c.labels.count);
  if (c.hidden_size % c.num_attention_heads != 0) {
    throw FileError("config", "hidden_size {} is no multiple of num_attention_heads {}; change one",
                    c.hidden_size, c.num_attention_heads);
  }
  if (c.image_size % c.patch_size != 0) {
    throw FileError("config", "image_size {} is no multiple of patch_size {}; change one",
                    c.image_size, c.patch_size);
  }
  return c;
}

recipe::Schema ViTConfig::options() {
  using recipe::Type;
  recipe::Schema schema;
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "image_size", "patch_size", "num_channels", "num_labels"}) {
    schema.add({.key = key, .type = Type::integer, .help = "as in config.json", .min = 1});
  }
  for (const char* key : {"hidden_dropout_prob", "attention_probs_dropout_prob",
                          "initializer_range", "layer_norm_eps"}) {
    schema.add({.key = key, .type = Type::number, .help = "as in config.json", .min = 0});
  }
  schema.add({.key = "hidden_act", .type = Type::string, .help = "as in config.json"});
  schema.add({.key = "qkv_bias", .type = Type::boolean, .help = "as in config.json"});
  return schema;
}

nlohmann::json ViTConfig::to_json() const {
  nlohmann::json out = {{"architectures", {"ViTForImageClassification"}},
                        {"model_type", "vit"},
                        {"hidden_size", hidden_size},
                        {"num_hidden_layers", num_hidden_layers},
                        {"num_attention_heads", num_attention_heads},
                        {"intermediate_size", intermediate_size},
                        {"hidden_act", activation_name(hidden_act)},
                        {"hidden_dropout_prob", hidden_dropout_prob},
                        {"attention_probs_dropout_prob", attention_probs_dropout_prob},
                        {"initializer_range", initializer_range},
                        {"layer_norm_eps", layer_norm_eps},
                        {"image_size", image_size},
                        {"patch_size", patch_size},
                        {"num_channels", num_channels},
                        {"qkv_bias", qkv_bias}};
  write_labels(out, labels);
  return out;
}

}  // namespace lithe::nn
