// Every call by which a checkpoint reaches the disk fails once. The calls are wrapped by the linker
// (-Wl,--wrap=NAME, tests/CMakeLists.txt).
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint_sample.h"
#include "io/temp_folder.h"

namespace {

namespace fs = std::filesystem;

struct Call {
  std::string name;
  std::string path;                      // of the file or folder; of rename: the old name
  std::string to = {};                   // rename
  std::vector<std::string> beside = {};  // fsync of a folder: what is in it
};

// What the wrapped calls do; they only pass through while nothing is watched.
struct Watch {
  bool on = false;
  int fail_at = -1;         // the call that fails; -1: none
  int interrupt_every = 0;  // each n-th write is interrupted or short; 0: none
  std::vector<Call> calls = {};
  std::string failed = {};  // name of the call that failed
  int error = 0;            // and its errno
};
Watch watch;

std::string path_of(int fd) {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/fd/" + std::to_string(fd), ignored).string();
}

// True: this call shall fail, and errno is set.
bool note(Call call, int error) {
  if (!watch.on) {
    return false;
  }
  const bool fails = static_cast<int>(watch.calls.size()) == watch.fail_at;
  if (fails) {
    watch.failed = call.name;
    watch.error = error;
  }
  watch.calls.push_back(std::move(call));
  errno = fails ? error : errno;
  return fails;
}

}  // namespace

extern "C" {

int __real_open(const char* path, int flags, ...);
int __real_mkdir(const char* path, mode_t mode);
ssize_t __real_pwrite(int fd, const void* data, size_t size, off_t offset);
int __real_fsync(int fd);
int __real_close(int fd);
int __real_rename(const char* from, const char* to);

int __wrap_open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  const bool creates_or_syncs = (flags & (O_CREAT | O_DIRECTORY)) != 0;
  if (creates_or_syncs && note({(flags & O_CREAT) != 0 ? "create" : "open", path}, EMFILE)) {
    return -1;
  }
  return __real_open(path, flags, mode);
}

int __wrap_mkdir(const char* path, mode_t mode) {
  return note({"mkdir", path}, ENOSPC) ? -1 : __real_mkdir(path, mode);
}

ssize_t __wrap_pwrite(int fd, const void* data, size_t size, off_t offset) {
  if (watch.on && note({"pwrite", path_of(fd)}, ENOSPC)) {
    return -1;
  }
  if (watch.on && watch.interrupt_every > 0) {
    const auto turn = static_cast<int>(watch.calls.size()) % watch.interrupt_every;
    if (turn == 0) {
      errno = EINTR;
      return -1;
    }
    if (turn == 1 && size > 1) {
      return __real_pwrite(fd, data, size / 2, offset);
    }
  }
  return __real_pwrite(fd, data, size, offset);
}

int __wrap_fsync(int fd) {
  if (watch.on) {
    Call call{"fsync", path_of(fd)};
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(call.path, ignored)) {
      call.beside.push_back(entry.path().filename().string());
    }
    if (note(std::move(call), EIO)) {
      return -1;
    }
  }
  return __real_fsync(fd);
}

int __wrap_close(int fd) {
  // Closing what was only read cannot lose anything, and nobody looks.
  if (watch.on && (::fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY &&
      note({"close", path_of(fd)}, EDQUOT)) {
    const int error = errno;
    __real_close(fd);
    errno = error;
    return -1;
  }
  return __real_close(fd);
}

int __wrap_rename(const char* from, const char* to) {
  return note({"rename", from, to}, EIO) ? -1 : __real_rename(from, to);
}
}

namespace lithe {
namespace {

using testing::load_sample;
using testing::sample_slots;
using testing::SampleId;
using testing::save_sample;

// Runs `action` with the `fail_at`-th call failing; the FileError's text, or "".
std::string with_failure(int fail_at, const std::function<void()>& action) {
  watch = {};
  watch.fail_at = fail_at;
  watch.on = true;
  std::string message;
  try {
    action();
  } catch (const FileError& error) {
    message = error.what();
  } catch (...) {
    watch.on = false;
    throw;
  }
  watch.on = false;
  return message;
}

int entries(const fs::path& folder) {
  return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

bool is_below(const std::string& path, const std::string& folder) {
  return path == folder || path.starts_with(folder + "/");
}

// Fails every call of saving `second` over `first` in turn.
void check_every_failure(SampleId first, SampleId second, int64_t keep) {
  const SlotTable slots = sample_slots(0.01);
  int calls = 0;
  {
    const TempFolder temporary;
    const fs::path folder = temporary / "checkpoints";
    save_sample(folder, slots, first.step, first.life, keep);
    REQUIRE(with_failure(-1, [&] { save_sample(folder, slots, second.step, second.life, keep); }) ==
            "");
    calls = static_cast<int>(watch.calls.size());
    REQUIRE(calls > 15);
  }
  std::set<std::string> failed;
  for (int n = 0; n < calls; ++n) {
    const TempFolder temporary;
    const fs::path folder = temporary / "checkpoints";
    save_sample(folder, slots, first.step, first.life, keep);
    const std::string message =
        with_failure(n, [&] { save_sample(folder, slots, second.step, second.life, keep); });
    const std::string call = fmt::format("call {}, {}", n, watch.failed);
    CAPTURE(call);
    CAPTURE(message);
    REQUIRE(!watch.failed.empty());
    failed.insert(watch.failed);
    CHECK(has(message, std::strerror(watch.error)));
    CHECK(has(message, folder.string()));

    // The first is whole. Only where syncing its name failed does the second stand beside it.
    const std::vector<fs::path> all = complete_checkpoints(folder);
    REQUIRE(!all.empty());
    CHECK(load_sample(all.back(), slots) == first);
    if (all.size() == 2) {
      CHECK(load_sample(all.front(), slots) == second);
      CHECK(n >= calls - 2);
    }
    CHECK(entries(folder) == static_cast<int>(all.size()));  // nothing half-written is left

    const SampleId third{second.step + 1, 3};
    save_sample(folder, slots, third.step, third.life, 1);
    CHECK(entries(folder) == 1);
    CHECK(load_sample(folder / fmt::format("step-{}", third.step), slots) == third);
  }
  CHECK(failed ==
        std::set<std::string>{"create", "open", "mkdir", "pwrite", "fsync", "close", "rename"});
}

TEST_CASE("checkpoint: each failing call is a FileError and leaves the last good one") {
  check_every_failure({1, 1}, {2, 2}, 2);
  check_every_failure({1, 1}, {2, 2}, 1);
}

TEST_CASE("checkpoint: the same while an older try at the same step is replaced") {
  check_every_failure({2, 1}, {2, 2}, 2);
}

TEST_CASE("checkpoint: interrupted and short writes are gone on with") {
  const TempFolder temporary;
  const fs::path folder = temporary / "checkpoints";
  const SlotTable slots = sample_slots(0.5);
  for (const int every : {2, 3, 5}) {
    watch = {};
    watch.interrupt_every = every;
    watch.on = true;
    save_sample(folder, slots, every, 1, 1);
    watch.on = false;
    CHECK(load_sample(*newest_checkpoint(folder), slots) == SampleId{every, 1});
  }
}

// Follows the calls as a disk that loses at a power cut whatever was not synced.
TEST_CASE("checkpoint: whatever a rename publishes was synced before it, and the name after it") {
  const TempFolder temporary;
  const fs::path folder = temporary / "run" / "checkpoints";
  const SlotTable slots = sample_slots(0.01);
  for (const SampleId id : {SampleId{1, 1}, SampleId{2, 2}, SampleId{2, 3}, SampleId{3, 4}}) {
    CAPTURE(id.step);
    CAPTURE(id.life);
    REQUIRE(with_failure(-1, [&] { save_sample(folder, slots, id.step, id.life, 1); }) == "");
    const std::string name = folder / fmt::format("step-{}", id.step);
    std::set<std::string> unsynced;
    bool published = false;
    bool durable = false;
    for (const Call& call : watch.calls) {
      if (call.name == "create" || call.name == "mkdir") {
        unsynced.insert(fs::path(call.path).parent_path());
      }
      if (call.name == "pwrite") {
        unsynced.insert(call.path);
      }
      if (call.name == "fsync") {
        unsynced.erase(call.path);
        if (published && call.path == folder.string()) {
          durable = true;
          // Only now may the older one go.
          CHECK(call.beside.size() == (id.step == 1 ? 1 : 2));
        }
      }
      if (call.name == "rename") {
        for (const std::string& path : unsynced) {
          CAPTURE(path);
          // A file's own folder is synced after it got its name, a checkpoint's before.
          CHECK((!is_below(path, call.path)));
        }
        published = published || call.to == name;
        unsynced.insert(fs::path(call.to).parent_path());
      }
    }
    CHECK(published);
    CHECK(durable);
    CHECK(unsynced.empty());
    CHECK(entries(folder) == 1);
  }
}

TEST_CASE("checkpoint: a damaged one is passed over, a run's own mistake is not") {
  const TempFolder temporary;
  const fs::path folder = temporary / "checkpoints";
  const SlotTable slots = sample_slots(0.01);
  int put = 0;
  const auto count = [&](SlotId, const Tensor&) { ++put; };
  CHECK(!load_newest_checkpoint(folder, slots, count));
  CHECK(!newest_checkpoint(folder));

  const std::vector<std::pair<std::string, std::function<void(const fs::path&)>>> damages = {
      {"has 10 bytes of", [](const fs::path& p) { fs::resize_file(p / "slots.safetensors", 10); }},
      {"No such file", [](const fs::path& p) { fs::remove(p / "slots.safetensors"); }},
      {"slots.safetensors does not match",
       [](const fs::path& p) {
         std::fstream file(p / "slots.safetensors", std::ios::in | std::ios::out);
         file.seekp(-1, std::ios::end);
         file.put('\x55');
       }},
      {"manifest.json does not match",
       [](const fs::path& p) {
         std::fstream file(p / "manifest.json", std::ios::in | std::ios::out);
         std::string text{std::istreambuf_iterator<char>(file), {}};
         file.clear();
         file.seekp(static_cast<std::streamoff>(text.find("\"seed\": 5") + 8));
         file.put('6');
       }},
      {"parse error", [](const fs::path& p) { fs::resize_file(p / "manifest.json", 20); }},
      {"parse error", [](const fs::path& p) { fs::resize_file(p / "manifest.json", 0); }},
      {"deeper than 64",
       [](const fs::path& p) {
         std::ofstream(p / "manifest.json") << "{\"format\":" << std::string(100000, '[');
       }},
      {"Is a directory",
       [](const fs::path& p) {
         fs::remove(p / "manifest.json");
         fs::create_directory(p / "manifest.json");
       }},
  };
  for (const auto& [why, damage] : damages) {
    CAPTURE(why);
    fs::remove_all(folder);
    save_sample(folder, slots, 1, 1, 3);
    save_sample(folder, slots, 2, 2, 3);
    damage(folder / "step-2");
    put = 0;
    const std::string message = message_of<DamagedCheckpoint>(
        [&] { load_checkpoint(*newest_checkpoint(folder), slots, count); });
    CAPTURE(message);
    CHECK(has(message, why));
    CHECK(has(message, "remove it to go on from the one before"));
    CHECK(put == 0);
    const auto loaded = load_newest_checkpoint(folder, slots, count);
    REQUIRE(loaded);
    CHECK(loaded->state.step == 1);
    CHECK(loaded->path == folder / "step-1");
    CHECK(loaded->damaged == std::vector<std::string>{message});
    // Gone on from step 1, the damaged one of a later step is no rival of what is saved then.
    save_sample(folder, slots, 2, 4, 1);
    CHECK(complete_checkpoints(folder) == std::vector<fs::path>{folder / "step-2"});
    CHECK(load_sample(folder / "step-2", slots) == SampleId{2, 4});
  }
  fs::resize_file(folder / "step-2" / "slots.safetensors", 10);
  CHECK(has(message_of<DamagedCheckpoint>([&] { load_newest_checkpoint(folder, slots, count); }),
            "--overwrite"));

  fs::remove_all(folder);
  save_sample(folder, slots, 1, 1, 1);
  SlotTable other = sample_slots(0.02);
  put = 0;
  CHECK(has(message_of<FileError>([&] { load_newest_checkpoint(folder, other, count); }),
            "resume with the recipe"));
  other.add({.name = "extra", .shape = Shape{1}});
  CHECK(has(message_of<FileError>([&] { load_newest_checkpoint(folder, other, count); }),
            "holds 6 tensors, the run has 7"));
  CHECK(put == 0);
}

TEST_CASE("checkpoint: later steps that the run went back behind do not outlive a save") {
  const TempFolder temporary;
  const SlotTable slots = sample_slots(0.01);
  const fs::path folder = temporary / "checkpoints";
  for (const int64_t step : {1, 2, 3, 9}) {
    save_sample(folder, slots, step, 1, 10);
  }
  save_sample(folder, slots, 4, 2, 2);
  CHECK(complete_checkpoints(folder) ==
        std::vector<fs::path>{folder / "step-4", folder / "step-3"});
  CHECK(entries(folder) == 2);
  // A killed replacement of step 4 may leave its older try under the other name.
  fs::rename(folder / "step-4", folder / "step-4.old");
  CHECK(load_sample(*newest_checkpoint(folder), slots) == SampleId{4, 2});
  save_sample(folder, slots, 4, 3, 2);
  CHECK(complete_checkpoints(folder) ==
        std::vector<fs::path>{folder / "step-4", folder / "step-3"});
  CHECK(load_sample(folder / "step-4", slots) == SampleId{4, 3});
  // What is no checkpoint is left alone, also where it stands in the way of none.
  fs::create_directories(folder / "step-x");
  fs::create_directories(folder / "step-5");
  std::ofstream(folder / "step-5" / "notes") << "x";
  save_sample(folder, slots, 5, 1, 1);
  CHECK(load_sample(folder / "step-5", slots) == SampleId{5, 1});
  CHECK(fs::exists(folder / "step-x"));
  CHECK(entries(folder) == 2);
}

}  // namespace
}  // namespace lithe
