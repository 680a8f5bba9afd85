#include "train/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <utility>
#include <vector>

#include <zlib.h>

#include "io/safetensors.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

// Where SIGKILL or a power cut may strike, and what a later run then finds:
//   while ".tmp-N" is filled           the older checkpoints; ".tmp-*" is removed by the next save
//   after "step-N" became "step-N.old" (only where the same step is saved again) the old files
//                                      under that name, which counts as a checkpoint
//   after ".tmp-N" became "step-N"     the new one, whose files and manifest were synced before,
//                                      and all older ones: the folder is synced before any goes
//   while older ones are removed       each first becomes ".tmp-gone-*" by one rename, so none is
//                                      ever seen half removed
// So a "step-N" is whole whenever it exists, and at most the one being written is lost.
constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kAside = ".old";
constexpr std::string_view kTemporary = ".tmp-";
constexpr std::string_view kSlotsFile = "slots.safetensors";
constexpr std::string_view kManifest = "manifest.json";
constexpr int kFormat = 2;

constexpr int kDeepestManifest = 64;

std::string crc_text(uLong crc) { return fmt::format("crc32:{:08x}", crc); }

// CRC-32 of a whole file: finds torn and rotten files; it is no defence against forgery.
std::string file_hash(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<char> buffer(1 << 20);
  uLong crc = crc32(0L, Z_NULL, 0);
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || in.gcount() > 0) {
    crc = crc32(crc, reinterpret_cast<const Bytef*>(buffer.data()), static_cast<uInt>(in.gcount()));
  }
  if (!in.eof()) {
    throw FileError("checkpoint", "{} cannot be read; check the disk", path.string());
  }
  return crc_text(crc);
}

// Of the manifest without its own hash.
std::string manifest_hash(nlohmann::json manifest) {
  manifest.erase("hash");
  const std::string text = manifest.dump();
  return crc_text(
      crc32(0L, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size())));
}

struct Found {
  int64_t step = -1;  // -1: not a checkpoint's name
  bool aside = false;
  fs::path path;
};

Found read_name(const fs::path& path) {
  Found found{-1, false, path};
  std::string_view name = path.filename().native();
  if (name.starts_with(kPrefix)) {
    name.remove_prefix(kPrefix.size());
    found.aside = name.ends_with(kAside);
    name.remove_suffix(found.aside ? kAside.size() : 0);
    int64_t step = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
    if (error == std::errc() && end == name.data() + name.size()) {
      found.step = step;
    }
  }
  return found;
}

// Newest first; an older try at a step comes after the newer one.
std::vector<Found> find_complete(const fs::path& folder) {
  std::vector<Found> out;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    Found found = read_name(entry.path());
    if (found.step >= 0 && fs::exists(entry.path() / kManifest, ignored)) {
      out.push_back(std::move(found));
    }
  }
  std::sort(out.begin(), out.end(), [](const Found& a, const Found& b) {
    return std::pair(a.step, !a.aside) > std::pair(b.step, !b.aside);
  });
  return out;
}

// What killed runs left half-written or half-removed; only one process writes to a run folder.
void remove_temporaries(const fs::path& folder) {
  std::vector<fs::path> stale;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().filename().native().starts_with(kTemporary)) {
      stale.push_back(entry.path());
    }
  }
  for (const fs::path& path : stale) {
    fs::remove_all(path, ignored);
  }
}

// Keeps the newest `keep` up to `step`. What cannot be removed costs space and is tried again at
// the next save: no reason to end a run.
void remove_superseded(const fs::path& folder, int64_t step, int64_t keep) {
  int64_t kept = 0;
  int64_t last_step = -1;
  std::error_code ignored;
  for (const Found& found : find_complete(folder)) {
    if (found.step <= step && found.step != last_step && kept < std::max<int64_t>(keep, 1)) {
      ++kept;
      last_step = found.step;
      continue;
    }
    const fs::path gone =
        folder / fmt::format("{}gone-{}", kTemporary, found.path.filename().string());
    fs::rename(found.path, gone, ignored);
    fs::remove_all(gone, ignored);
  }
}

void write_files(const fs::path& folder, const CheckpointState& state, const SlotTable& slots,
                 const std::function<Tensor(SlotId)>& get) {
  std::vector<TensorSpec> specs;
  specs.reserve(static_cast<size_t>(slots.size()));
  for (SlotId s = 0; s < slots.size(); ++s) {
    specs.push_back({slots[s].name, slots[s].dtype, slots[s].shape});
  }
  const fs::path data = folder / kSlotsFile;
  SafetensorsWriter writer(data, specs);
  for (SlotId s = 0; s < slots.size(); ++s) {
    const Tensor value = get(s);
    writer.write(slots[s].name, {value.data(), static_cast<size_t>(value.bytes())});
  }
  writer.commit();
  std::error_code error;
  const auto bytes = fs::file_size(data, error);
  if (error) {
    throw FileError("checkpoint", "{} cannot be read back: {}; check the disk", data.string(),
                    error.message());
  }
  nlohmann::json manifest = {
      {"format", kFormat},
      {"step", state.step},
      {"seed", state.seed},
      {"batch", state.batch},
      {"samples", state.samples},
      {"passes", state.passes},
      {"files", {{std::string(kSlotsFile), {{"bytes", bytes}, {"hash", file_hash(data)}}}}}};
  manifest["hash"] = manifest_hash(manifest);
  write_file_atomically(folder / kManifest, manifest.dump(2) + "\n");
}

// Renames the filled folder to `final_path`, where an older try at the same step may stand.
void publish(const fs::path& temporary, const fs::path& final_path) {
  const fs::path aside = final_path.string() + std::string(kAside);
  const fs::path rest = temporary.string() + std::string(kAside);
  std::error_code ignored;
  const bool again = fs::exists(final_path / kManifest, ignored);
  if (again) {
    if (fs::exists(aside, ignored)) {  // of a kill in this function; `final_path` is newer
      rename_path(aside, rest);
    }
    rename_path(final_path, aside);
  } else if (fs::exists(final_path, ignored)) {  // no checkpoint, but in the way
    rename_path(final_path, rest);
  }
  try {
    rename_path(temporary, final_path);
  } catch (const FileError&) {
    if (again) {
      fs::rename(aside, final_path, ignored);  // else it is found under the other name
    }
    throw;
  }
}

// Reads the manifest and checks every hash.
CheckpointState read_manifest(const fs::path& checkpoint) {
  const auto damaged = [&](const std::string& why) {
    return DamagedCheckpoint("checkpoint",
                             "{} is damaged ({}); remove it to go on from the one before",
                             checkpoint.string(), why);
  };
  const auto shallow = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kDeepestManifest) {
      throw damaged(fmt::format("{} is nested deeper than {}", kManifest, kDeepestManifest));
    }
    return true;
  };
  try {
    const nlohmann::json manifest =
        nlohmann::json::parse(read_whole_file(checkpoint / kManifest), shallow);
    if (const int format = manifest.at("format").get<int>(); format != kFormat) {
      throw damaged(fmt::format("its format is {}, this program reads {}", format, kFormat));
    }
    if (manifest.at("hash").get<std::string>() != manifest_hash(manifest)) {
      throw damaged(fmt::format("the hash of {} does not match", kManifest));
    }
    CheckpointState state;
    state.step = manifest.at("step").get<int64_t>();
    if (state.step != read_name(checkpoint).step) {
      throw damaged(fmt::format("its manifest is of step {}", state.step));
    }
    state.seed = manifest.at("seed").get<uint64_t>();
    state.batch = manifest.at("batch").get<int64_t>();
    state.samples = manifest.at("samples").get<int64_t>();
    state.passes = manifest.at("passes");
    const auto& file = manifest.at("files").at(std::string(kSlotsFile));
    std::error_code error;
    const auto bytes = fs::file_size(checkpoint / kSlotsFile, error);
    if (error) {
      throw damaged(fmt::format("{}: {}", kSlotsFile, error.message()));
    }
    if (const auto written = file.at("bytes").get<uint64_t>(); written != bytes) {
      throw damaged(fmt::format("{} has {} bytes of {}", kSlotsFile, bytes, written));
    }
    if (file.at("hash").get<std::string>() != file_hash(checkpoint / kSlotsFile)) {
      throw damaged(fmt::format("the hash of {} does not match", kSlotsFile));
    }
    return state;
  } catch (const DamagedCheckpoint&) {
    throw;
  } catch (const FileError& error) {  // a bad sector, for one
    throw damaged(error.what());
  } catch (const nlohmann::json::exception& error) {
    throw damaged(error.what());
  }
}

}  // namespace

void save_checkpoint(const fs::path& folder, const CheckpointState& state, const SlotTable& slots,
                     const std::function<Tensor(SlotId)>& get, int64_t keep) {
  make_folders(folder);
  remove_temporaries(folder);
  const fs::path temporary = folder / fmt::format("{}{}-{}", kTemporary, state.step, getpid());
  try {
    make_folders(temporary);
    write_files(temporary, state, slots, get);
    publish(temporary, folder / fmt::format("{}{}", kPrefix, state.step));
    sync_folder(folder);
  } catch (...) {
    remove_temporaries(folder);  // a full disk gets its space back
    throw;
  }
  remove_superseded(folder, state.step, keep);
  remove_temporaries(folder);
}

std::vector<fs::path> complete_checkpoints(const fs::path& folder) {
  std::vector<fs::path> out;
  for (Found& found : find_complete(folder)) {
    out.push_back(std::move(found.path));
  }
  return out;
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder) {
  const std::vector<fs::path> all = complete_checkpoints(folder);
  return all.empty() ? std::nullopt : std::optional(all.front());
}

CheckpointState load_checkpoint(const fs::path& checkpoint, const SlotTable& slots,
                                const std::function<void(SlotId, const Tensor&)>& put) {
  CheckpointState state = read_manifest(checkpoint);
  const SafetensorsFile file = SafetensorsFile::open(checkpoint / kSlotsFile);
  if (file.names().size() != static_cast<size_t>(slots.size())) {
    throw FileError("checkpoint",
                    "{} holds {} tensors, the run has {}; resume with the recipe it was made with",
                    checkpoint.string(), file.names().size(), slots.size());
  }
  for (SlotId s = 0; s < slots.size(); ++s) {
    const TensorInfo& info = file.info(slots[s].name);
    if (info.dtype != slots[s].dtype || info.shape != slots[s].shape) {
      throw FileError("checkpoint",
                      "'{}' is {} {} in {}, the run has {} {}; resume with the recipe it was made "
                      "with",
                      slots[s].name, dtype_name(info.dtype), info.shape, checkpoint.string(),
                      dtype_name(slots[s].dtype), slots[s].shape);
    }
  }
  for (SlotId s = 0; s < slots.size(); ++s) {
    put(s, file.read(slots[s].name));
  }
  return state;
}

std::optional<LoadedCheckpoint> load_newest_checkpoint(
    const fs::path& folder, const SlotTable& slots,
    const std::function<void(SlotId, const Tensor&)>& put) {
  const std::vector<fs::path> all = complete_checkpoints(folder);
  LoadedCheckpoint loaded;
  for (const fs::path& path : all) {
    try {
      loaded.state = load_checkpoint(path, slots, put);
      loaded.path = path;
      return loaded;
    } catch (const DamagedCheckpoint& error) {
      loaded.damaged.emplace_back(error.what());
    }
  }
  if (all.empty()) {
    return std::nullopt;
  }
  throw DamagedCheckpoint("checkpoint",
                          "all {} checkpoints in {} are damaged, the newest: {}; start anew with "
                          "--overwrite",
                          all.size(), folder.string(), loaded.damaged.front());
}

}  // namespace lithe
