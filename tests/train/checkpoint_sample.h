// Checkpoints of a few megabytes for tests, whose contents follow from step and life: a checkpoint
// that mixes two of them is found out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "train/checkpoint.h"

namespace lithe::testing {

// `megabytes` spread unevenly over six slots.
inline SlotTable sample_slots(double megabytes) {
  SlotTable slots;
  const double share[] = {0.5, 0.25, 0.125, 0.0625, 0.0625, 0.0};
  int64_t index = 0;
  for (const double part : share) {
    Slot slot;
    slot.name = "block." + std::to_string(index) + ".weight";
    slot.dtype = index % 2 == 0 ? DType::i32 : DType::i64;
    const double bytes = megabytes * 1048576 * part;
    slot.shape =
        Shape{std::max<int64_t>(1, static_cast<int64_t>(bytes) / (dtype_bits(slot.dtype) / 8))};
    slots.add(slot);
    ++index;
  }
  return slots;
}

inline Tensor sample_value(const SlotTable& slots, SlotId s, int64_t step, int64_t life) {
  Tensor out(slots[s].dtype, slots[s].shape);
  auto word = static_cast<uint32_t>(step * 7919 + life * 104729 + s);
  for (std::byte* at = out.data(); at != out.data() + out.bytes(); at += 4) {
    word = word * 1664525u + 1013904223u;
    std::copy_n(reinterpret_cast<const std::byte*>(&word), 4, at);
  }
  return out;
}

inline void save_sample(const std::filesystem::path& folder, const SlotTable& slots, int64_t step,
                        int64_t life, int64_t keep) {
  CheckpointState state;
  state.step = step;
  state.seed = 5;
  state.batch = 8;
  state.samples = 100;
  state.passes = {{"life", life}};
  save_checkpoint(
      folder, state, slots, [&](SlotId s) { return sample_value(slots, s, step, life); }, keep);
}

struct SampleId {
  int64_t step = 0;
  int64_t life = 0;
  bool operator==(const SampleId&) const = default;
};

// Loads a checkpoint; throws when a byte is not what step and life say.
inline SampleId load_sample(const std::filesystem::path& checkpoint, const SlotTable& slots) {
  int64_t seen = 0;
  std::vector<Tensor> values(static_cast<size_t>(slots.size()));
  const CheckpointState state =
      load_checkpoint(checkpoint, slots, [&](SlotId s, const Tensor& value) {
        values[static_cast<size_t>(s)] = value;
        ++seen;
      });
  const SampleId id{state.step, state.passes.at("life").get<int64_t>()};
  for (SlotId s = 0; s < slots.size(); ++s) {
    const Tensor wanted = sample_value(slots, s, id.step, id.life);
    const Tensor& value = values[static_cast<size_t>(s)];
    if (!std::equal(wanted.data(), wanted.data() + wanted.bytes(), value.data())) {
      throw std::runtime_error(checkpoint.string() + ": " + slots[s].name + " is of another save");
    }
  }
  if (seen != slots.size() || state.seed != 5 || state.batch != 8 || state.samples != 100) {
    throw std::runtime_error(checkpoint.string() + ": its state is of another save");
  }
  return id;
}

}  // namespace lithe::testing
