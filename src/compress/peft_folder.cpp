#include "compress/peft_folder.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <nlohmann/json.hpp>

#include "compress/adapter_sites.h"
#include "nn/config_reader.h"
#include "nn/pretrained.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kKey = "adapter.path";
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kBaseLayer = ".base_layer.";
constexpr std::string_view kA = ".lora_A.weight";
constexpr std::string_view kB = ".lora_B.weight";
constexpr int64_t kLargestRank = 1 << 16;

// Fields that say nothing of what the tensors mean: those read below, and notes of other programs.
// Which layers are adapted is read from the tensors.
constexpr std::array<std::string_view, 26> kHarmless = {"arrow_config",
                                                        "auto_mapping",
                                                        "base_model_name_or_path",
                                                        "bias",
                                                        "corda_config",
                                                        "ensure_weight_tying",
                                                        "eva_config",
                                                        "exclude_modules",
                                                        "inference_mode",
                                                        "init_lora_weights",
                                                        "layers_pattern",
                                                        "layers_to_transform",
                                                        "loftq_config",
                                                        "lora_alpha",
                                                        "lora_dropout",
                                                        "megatron_config",
                                                        "megatron_core",
                                                        "modules_to_save",
                                                        "peft_type",
                                                        "peft_version",
                                                        "qalora_group_size",
                                                        "r",
                                                        "revision",
                                                        "target_modules",
                                                        "task_type",
                                                        "use_rslora"};

bool says_nothing(const json& field) {
  return field.is_null() || field == false || (field.is_structured() && field.empty());
}

std::vector<std::string> texts(const json& field, std::string_view key, const std::string& path) {
  if (!field.is_array() ||
      !std::all_of(field.begin(), field.end(), [](const json& j) { return j.is_string(); })) {
    throw FileError(kKey, "{}: {} is a JSON {}, a list of names is wanted", path, key,
                    field.type_name());
  }
  return field.get<std::vector<std::string>>();
}

// "x.base_layer.bias" is the bias of the adapted layer x.
std::string parameter_name(std::string_view file_name) {
  std::string name(file_name.substr(kPrefix.size()));
  if (const size_t at = name.rfind(kBaseLayer); at != std::string::npos) {
    name.replace(at, kBaseLayer.size(), ".");
  }
  return name;
}

}  // namespace

PeftFolder::PeftFolder(const fs::path& folder)
    : path_(folder.string()), tensors_(SafetensorsFolder::open(folder, "adapter_model")) {
  read_fields(nn::read_config(folder / "adapter_config.json", kKey));
  read_names();
}

void PeftFolder::read_fields(const json& config) {
  const nn::ConfigReader reader(config);
  std::string kind;
  reader.text("peft_type", kind);
  if (kind != "LORA") {
    throw FileError(kKey, "{}: peft_type is '{}', only LORA is supported", path_, kind);
  }
  reader.size("r", config_.rank, kLargestRank);
  config_.alpha = 8;  // PEFT's default
  reader.positive("lora_alpha", config_.alpha);
  reader.probability("lora_dropout", config_.dropout);
  reader.flag("use_rslora", config_.rslora);
  reader.text("bias", config_.bias);
  if (config_.bias != "none" && config_.bias != "all" && config_.bias != "lora_only") {
    throw FileError(kKey, "{}: bias is '{}'; known are none, all, lora_only", path_, config_.bias);
  }
  config_.modules_to_save.emplace();
  if (const auto field = config.find("modules_to_save"); field != config.end()) {
    if (!field->is_null()) {
      config_.modules_to_save = texts(*field, "modules_to_save", path_);
    }
  }
  // Starts that change the base's weights too make a file that is no adapter of the base itself.
  if (const auto start = config.find("init_lora_weights");
      start != config.end() && !start->is_boolean() && !start->is_null() && *start != "gaussian" &&
      *start != "orthogonal" && *start != "eva") {
    throw FileError(kKey,
                    "{}: init_lora_weights other than true, false, gaussian, orthogonal or eva "
                    "may have changed the base; save the adapter converted to plain LoRA",
                    path_);
  }
  for (const auto& [key, value] : config.items()) {
    const bool known = std::find(kHarmless.begin(), kHarmless.end(), key) != kHarmless.end();
    if (!known && !says_nothing(value)) {
      throw FileError(kKey, "{}: the field '{}' is set and not supported; use an adapter without",
                      path_, key);
    }
  }
}

void PeftFolder::read_names() {
  for (const std::string& name : tensors_.names()) {
    if (!name.starts_with(kPrefix)) {
      throw FileError(kKey, "{}: the tensor '{}' does not start with '{}' as PEFT's do", path_,
                      name, kPrefix);
    }
    const std::string parameter = parameter_name(name);
    if (const auto [known, fresh] = file_name_.emplace(parameter, name); !fresh) {
      throw FileError(kKey, "{}: '{}' and '{}' are both '{}'; remove one of them", path_,
                      known->second, name, parameter);
    }
    if (!is_floating(tensors_.info(name).dtype)) {
      throw FileError(kKey, "{}: '{}' is {}; a floating type is wanted", path_, name,
                      dtype_name(tensors_.info(name).dtype));
    }
  }
  const auto expect_pair = [&](const std::string& name, std::string_view from,
                               std::string_view to) {
    std::string layer = name.substr(0, name.size() - from.size());
    if (!file_name_.contains(layer + std::string(to))) {
      throw FileError(kKey, "{}: '{}' is there and its '{}' is not", path_, name, to.substr(1));
    }
    return layer;
  };
  for (const auto& [name, _] : file_name_) {
    if (name.ends_with(kA)) {
      config_.target.push_back(expect_pair(name, kA, kB));
    } else if (name.ends_with(kB)) {
      expect_pair(name, kB, kA);
    }
  }
  if (config_.target.empty()) {
    throw FileError(kKey, "{}: no tensor is a lora_A; the file holds no LoRA adapter", path_);
  }
}

void PeftFolder::check(const std::vector<NamedParameter>& parameters,
                       const SlotTable& slots) const {
  auto left = file_name_;
  for (const NamedParameter& p : parameters) {
    const auto found = file_name_.find(p.name);
    if (found == file_name_.end()) {
      throw FileError(kKey, "{} lacks '{}{}', which its config says is trained", path_, kPrefix,
                      p.name);
    }
    left.erase(p.name);
    const Shape& shape = tensors_.info(found->second).shape;
    Shape wanted = slots[p.slot].shape;
    if (p.layout == nn::FileLayout::conv_oihw) {
      wanted = {wanted[0], wanted[3], wanted[1], wanted[2]};
    }
    if (shape != wanted) {
      throw FileError(kKey, "{}: '{}' is {}, {} of rank {} is wanted; is it of this model?", path_,
                      found->second, shape, wanted, config_.rank);
    }
  }
  if (!left.empty()) {
    throw FileError(kKey, "{}: '{}' is no parameter that its config says is trained ({} such)",
                    path_, left.begin()->second, left.size());
  }
}

Tensor PeftFolder::read(const NamedParameter& p, const SlotTable& slots) const {
  const Tensor value = tensors_.read(file_name_.find(p.name)->second);
  return nn::from_file_layout(value, p.layout).to(slots[p.slot].dtype);
}

void write_peft_folder(const RunFiles& run, const fs::path& folder, const LoraConfig& config,
                       const std::vector<std::string>& adapted,
                       const std::vector<std::string>& saved_modules,
                       const std::vector<NamedParameter>& parameters) {
  fs::create_directories(folder);
  const auto file_name = [&](const std::string& name) {
    for (const std::string& layer : adapted) {
      if (name == layer + ".bias") {
        return fmt::format("{}{}{}bias", kPrefix, layer, kBaseLayer);
      }
    }
    return fmt::format("{}{}", kPrefix, name);
  };
  std::vector<NamedTensor> tensors;
  tensors.reserve(parameters.size());
  for (const NamedParameter& p : parameters) {
    tensors.push_back({file_name(p.name), nn::to_file_layout(run.get(p.slot), p.layout)});
  }
  write_safetensors(folder / "adapter_model.safetensors", tensors, {{"format", "pt"}});

  const bool plain = std::none_of(config.target.begin(), config.target.end(), [](const auto& p) {
    return p.find_first_of("*?") != std::string::npos;
  });
  nlohmann::ordered_json out;
  out["peft_type"] = "LORA";
  out["task_type"] = nullptr;
  if (run.model.input_kind() == nn::InputKind::text) {
    out["task_type"] = run.model.task() == nn::Task::span ? "QUESTION_ANS" : "SEQ_CLS";
  }
  out["base_model_name_or_path"] = run.base.empty() ? json() : json(run.base);
  out["inference_mode"] = true;
  out["r"] = config.rank;
  const bool whole = std::floor(config.alpha) == config.alpha && config.alpha < 1e15;
  out["lora_alpha"] = whole ? json(static_cast<int64_t>(config.alpha)) : json(config.alpha);
  out["lora_dropout"] = config.dropout;
  out["use_rslora"] = config.rslora;
  out["bias"] = config.bias;
  out["target_modules"] = plain ? config.target : adapted;
  out["modules_to_save"] = saved_modules.empty() ? json() : json(saved_modules);
  out["fan_in_fan_out"] = false;
  out["init_lora_weights"] = true;
  // A path need not be UTF-8, JSON has to be.
  write_file_atomically(folder / "adapter_config.json",
                        out.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

}  // namespace lithe
