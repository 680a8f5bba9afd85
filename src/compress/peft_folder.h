// An adapter in the layout of Hugging Face's PEFT: adapter_config.json and
// adapter_model.safetensors, in which "base_model.model." stands before the model's names. Files
// are hostile until checked.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "compress/lora_config.h"
#include "compress/selector.h"
#include "io/safetensors.h"
#include "tensor/graph/pass.h"

namespace lithe {

class PeftFolder {
 public:
  // Reads the config and the names and shapes of the tensors. Throws FileError naming the field or
  // tensor that is missing, malformed, or of a kind of adapter that is not supported.
  explicit PeftFolder(const std::filesystem::path& folder);

  // Its target is the adapted layers by their paths, as the tensors say.
  const LoraConfig& config() const { return config_; }
  // Throws FileError unless the tensors are these parameters, by name and shape.
  void check(const std::vector<NamedParameter>& parameters, const SlotTable& slots) const;
  // The value of one of them, in its slot's dtype.
  Tensor read(const NamedParameter& parameter, const SlotTable& slots) const;

 private:
  void read_fields(const nlohmann::json& config);
  void read_names();

  std::string path_;
  LoraConfig config_;
  SafetensorsFolder tensors_;
  std::map<std::string, std::string, std::less<>> file_name_;  // by the parameter's name
};

// Writes both files. `adapted` are the paths of the layers with adapters; `parameters` all that
// training has changed.
void write_peft_folder(const RunFiles& run, const std::filesystem::path& folder,
                       const LoraConfig& config, const std::vector<std::string>& adapted,
                       const std::vector<std::string>& saved_modules,
                       const std::vector<NamedParameter>& parameters);

}  // namespace lithe
