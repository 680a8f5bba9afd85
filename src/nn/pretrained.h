// Weights between Hugging Face files and slots: names are the files' own, layouts are converted.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "nn/model.h"
#include "nn/nearest_names.h"

namespace lithe::nn {

// What loading a folder would do, by name.
struct NameMatch {
  std::vector<std::string> matched;     // parameters, under whichever name the file has
  std::vector<std::string> missing;     // parameters that are not in the file
  std::vector<std::string> unexpected;  // tensors of the file that are no parameter
  // For names in `missing` the likely one in `unexpected`, and the other way round.
  NearestNames nearest;
};
// Files may use the model's other names (Model::other_names); constants (Model::is_constant) are
// passed over. Throws FileError for two tensors that are the same parameter.
NameMatch match_names(const Model& model, const SafetensorsFolder& folder);
// "name", or "name (nearest: other)" where match.nearest has it.
std::vector<std::string> with_nearest(const std::vector<std::string>& names,
                                      const NameMatch& match);

// Calls put(slot, value) for every parameter named in `names`, converted to the slot's dtype and
// layout. Throws FileError for a parameter that the file lacks under all its names, and for a shape
// that does not fit, naming the tensor and both shapes.
void load_weights(const Model& model, const SafetensorsFolder& folder,
                  const std::vector<std::string>& names,
                  const std::function<void(SlotId, const Tensor&)>& put);

// Writes model.safetensors and config.json into `folder`; get(slot) gives a value. Adapters are
// folded in (Module::file_value). Of `config`, the fields that the model does not set are written
// as well.
void save_weights(const Model& model, const std::filesystem::path& folder,
                  const std::function<Tensor(SlotId)>& get,
                  nlohmann::json config = nlohmann::json::object());

// A tensor in its file's layout, and back.
Tensor to_file_layout(const Tensor& value, FileLayout layout);
Tensor from_file_layout(const Tensor& value, FileLayout layout);

}  // namespace lithe::nn
