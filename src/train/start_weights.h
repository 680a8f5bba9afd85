// The weights that a run starts from: drawn from the seed, or read from a Hugging Face folder.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "nn/pretrained.h"
#include "train/experiment.h"

namespace lithe {

class StartWeights {
 public:
  // Opens the files and compares all names; throws FileError when one is missing or damaged, or
  // when tensors are missing or unexpected and the recipe does not allow it. Draws and reads
  // nothing yet.
  explicit StartWeights(Experiment& experiment);

  // What was found, a line each, for the log.
  const std::vector<std::string>& lines() const { return lines_; }
  // Gives every slot its first value: parameters, and the state of optimizer and passes.
  void write(const std::function<void(SlotId, const Tensor&)>& put) const;

 private:
  Experiment& experiment_;
  std::optional<SafetensorsFolder> folder_;
  std::vector<std::string> wanted_;  // parameters to read
  std::vector<std::string> lines_;
};

}  // namespace lithe
