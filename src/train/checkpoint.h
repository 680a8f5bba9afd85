// Checkpoints: checkpoints/step-N/ with every slot, the passes' state and a manifest with hashes;
// written under a temporary name, synced, renamed, so that a kill leaves the previous one whole.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tensor/core/error.h"
#include "tensor/graph/slots.h"

namespace lithe {

// What a run needs besides the slots to go on exactly.
struct CheckpointState {
  int64_t step = 0;  // updates done; data position and dropout follow from it
  uint64_t seed = 0;
  // Samples in one update and in the training data: with others, the data position would be
  // another.
  int64_t batch = 0;
  int64_t samples = 0;
  nlohmann::json passes = nlohmann::json::object();
};

// A checkpoint whose files are not what was written: an older one may still be good.
class DamagedCheckpoint : public FileError {
 public:
  using FileError::FileError;
};

// Writes `folder`/step-N and, once it is on the disk, removes all but the newest `keep` and those
// of later steps, which the run went back behind. Throws FileError naming the file and the
// system's reason; the checkpoints that were there then stay.
void save_checkpoint(const std::filesystem::path& folder, const CheckpointState& state,
                     const SlotTable& slots, const std::function<Tensor(SlotId)>& get,
                     int64_t keep);

// The complete checkpoints of a folder, newest first.
std::vector<std::filesystem::path> complete_checkpoints(const std::filesystem::path& folder);

// The newest complete checkpoint of a folder, or nothing.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder);

// Checks the manifest and every hash, and hands every slot to `put`. Throws DamagedCheckpoint when
// a file is damaged, FileError when the slots are not those of the run; `put` was not called then.
CheckpointState load_checkpoint(const std::filesystem::path& checkpoint, const SlotTable& slots,
                                const std::function<void(SlotId, const Tensor&)>& put);

struct LoadedCheckpoint {
  std::filesystem::path path;
  CheckpointState state;
  std::vector<std::string> damaged;  // why each newer one was passed over
};

// The newest checkpoint that is not damaged; nothing where the folder has none. Throws
// DamagedCheckpoint when all are, FileError as load_checkpoint does.
std::optional<LoadedCheckpoint> load_newest_checkpoint(
    const std::filesystem::path& folder, const SlotTable& slots,
    const std::function<void(SlotId, const Tensor&)>& put);

}  // namespace lithe
