#include "train/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <vector>

#include <zlib.h>

#include "io/safetensors.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kSlotsFile = "slots.safetensors";
constexpr int kFormat = 1;

// CRC-32 of a whole file: finds torn and rotten files; it is no defence against forgery.
std::string file_hash(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<char> buffer(1 << 20);
  uLong crc = crc32(0L, Z_NULL, 0);
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || in.gcount() > 0) {
    crc = crc32(crc, reinterpret_cast<const Bytef*>(buffer.data()), static_cast<uInt>(in.gcount()));
  }
  if (in.bad()) {
    throw FileError("checkpoint", "{} cannot be read", path.string());
  }
  return fmt::format("crc32:{:08x}", crc);
}

// The step of "step-N", or -1.
int64_t step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  int64_t step = -1;
  if (name.starts_with(kPrefix)) {
    const char* begin = name.data() + kPrefix.size();
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), step);
    if (error != std::errc() || end != name.data() + name.size()) {
      return -1;
    }
  }
  return step;
}

std::vector<fs::path> complete_checkpoints(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (step_of(entry.path()) >= 0 && fs::exists(entry.path() / "manifest.json")) {
      out.push_back(entry.path());
    }
  }
  std::sort(out.begin(), out.end(),
            [](const fs::path& a, const fs::path& b) { return step_of(a) < step_of(b); });
  return out;
}

}  // namespace

void save_checkpoint(const fs::path& folder, const CheckpointState& state, const SlotTable& slots,
                     const std::function<Tensor(SlotId)>& get, int64_t keep) {
  const fs::path final_path = folder / fmt::format("{}{}", kPrefix, state.step);
  const fs::path temporary = folder / fmt::format(".tmp-{}-{}", state.step, getpid());
  std::error_code error;
  // What killed runs left half-written; only one process writes to a run folder.
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().filename().string().starts_with(".tmp-")) {
      stale.push_back(entry.path());
    }
  }
  for (const fs::path& path : stale) {
    fs::remove_all(path, error);
  }
  fs::create_directories(temporary, error);
  if (error) {
    throw FileError("checkpoint", "{} cannot be made: {}", temporary.string(), error.message());
  }
  std::vector<TensorSpec> specs;
  specs.reserve(static_cast<size_t>(slots.size()));
  for (SlotId s = 0; s < slots.size(); ++s) {
    specs.push_back({slots[s].name, slots[s].dtype, slots[s].shape});
  }
  const fs::path data = temporary / kSlotsFile;
  SafetensorsWriter writer(data, specs);
  for (SlotId s = 0; s < slots.size(); ++s) {
    const Tensor value = get(s);
    writer.write(slots[s].name, {value.data(), static_cast<size_t>(value.bytes())});
  }
  writer.commit();
  const nlohmann::json manifest = {
      {"format", kFormat},
      {"step", state.step},
      {"seed", state.seed},
      {"batch", state.batch},
      {"passes", state.passes},
      {"files",
       {{std::string(kSlotsFile), {{"bytes", fs::file_size(data)}, {"hash", file_hash(data)}}}}}};
  write_file_atomically(temporary / "manifest.json", manifest.dump(2) + "\n");
  sync_folder(temporary);
  fs::remove_all(final_path, error);  // an older try at the same step
  fs::rename(temporary, final_path, error);
  if (error) {
    throw FileError("checkpoint", "{} cannot be renamed to {}: {}", temporary.string(),
                    final_path.string(), error.message());
  }
  sync_folder(folder);

  const std::vector<fs::path> all = complete_checkpoints(folder);
  for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) {
    fs::remove_all(all[i], error);
  }
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder) {
  const std::vector<fs::path> all = complete_checkpoints(folder);
  return all.empty() ? std::nullopt : std::optional(all.back());
}

CheckpointState load_checkpoint(const fs::path& checkpoint, const SlotTable& slots,
                                const std::function<void(SlotId, const Tensor&)>& put) {
  const auto damaged = [&](const std::string& why) {
    return FileError("checkpoint", "{} is damaged ({}); remove it to go on from the one before",
                     checkpoint.string(), why);
  };
  CheckpointState state;
  try {
    std::ifstream in(checkpoint / "manifest.json");
    const nlohmann::json manifest = nlohmann::json::parse(in);
    if (manifest.at("format").get<int>() != kFormat) {
      throw damaged(fmt::format("its format is not {}", kFormat));
    }
    state.step = manifest.at("step").get<int64_t>();
    if (state.step != step_of(checkpoint)) {
      throw damaged(fmt::format("its manifest is of step {}", state.step));
    }
    state.seed = manifest.at("seed").get<uint64_t>();
    state.batch = manifest.at("batch").get<int64_t>();
    state.passes = manifest.at("passes");
    const auto& file = manifest.at("files").at(std::string(kSlotsFile));
    const fs::path data = checkpoint / kSlotsFile;
    if (file.at("hash").get<std::string>() != file_hash(data)) {
      throw damaged("its hash does not match");
    }
  } catch (const nlohmann::json::exception& e) {
    throw damaged(e.what());
  }
  const SafetensorsFile file = SafetensorsFile::open(checkpoint / kSlotsFile);
  if (file.names().size() != static_cast<size_t>(slots.size())) {
    throw FileError("checkpoint",
                    "{} holds {} tensors, the run has {}; resume with the recipe it was made with",
                    checkpoint.string(), file.names().size(), slots.size());
  }
  for (SlotId s = 0; s < slots.size(); ++s) {
    const TensorInfo& info = file.info(slots[s].name);
    if (info.dtype != slots[s].dtype || info.shape != slots[s].shape) {
      throw FileError("checkpoint", "'{}' is {} {} in {}, the run has {} {}", slots[s].name,
                      dtype_name(info.dtype), info.shape, checkpoint.string(),
                      dtype_name(slots[s].dtype), slots[s].shape);
    }
    put(s, file.read(slots[s].name));
  }
  return state;
}

}  // namespace lithe
