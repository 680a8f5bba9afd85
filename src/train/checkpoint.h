// Checkpoints: checkpoints/step-N/ with every slot, the passes' state and a manifest with hashes;
// written under a temporary name, synced, renamed, so that a kill leaves the previous one whole.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "tensor/graph/slots.h"

namespace lithe {

// What a run needs besides the slots to go on exactly.
struct CheckpointState {
  int64_t step = 0;  // updates done; data position and dropout follow from it
  uint64_t seed = 0;
  int64_t batch = 0;  // samples in one update: with another, the data position would be another
  nlohmann::json passes = nlohmann::json::object();
};

// Writes `folder`/step-N and removes all but the newest `keep`. Throws FileError; older ones stay.
void save_checkpoint(const std::filesystem::path& folder, const CheckpointState& state,
                     const SlotTable& slots, const std::function<Tensor(SlotId)>& get,
                     int64_t keep);

// The newest complete checkpoint of a folder, or nothing.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder);

// Checks the manifest and every hash, and hands every slot to `put`. Throws FileError when a file
// is damaged or the slots are not those of the run.
CheckpointState load_checkpoint(const std::filesystem::path& checkpoint, const SlotTable& slots,
                                const std::function<void(SlotId, const Tensor&)>& put);

}  // namespace lithe
