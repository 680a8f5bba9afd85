// A finished model as a Hugging Face folder: config.json, model.safetensors and, for text, the
// tokenizer's files, so that other libraries load it unchanged.
#pragma once

#include <filesystem>
#include <functional>

#include "train/experiment.h"

namespace lithe {

// get(slot) gives a parameter's value. Throws FileError.
void export_model(const Experiment& experiment, const std::filesystem::path& folder,
                  const std::function<Tensor(SlotId)>& get);

}  // namespace lithe
