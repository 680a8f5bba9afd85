// A process that saves checkpoints is killed at random moments, over and over in one folder.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "checkpoint_sample.h"
#include "io/temp_folder.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;
using testing::SampleId;

constexpr int64_t kKeep = 2;

// Saves `first` and the steps after it, and says so after each. Never returns.
[[noreturn]] void save_forever(const fs::path& folder, const SlotTable& slots, int64_t first,
                               int64_t life, int acknowledge) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (int64_t step = first;; ++step) {
    testing::save_sample(folder, slots, step, life, kKeep);
    const SampleId id{step, life};
    if (::write(acknowledge, &id, sizeof(id)) != sizeof(id)) {
      ::_exit(1);
    }
  }
}

std::vector<SampleId> read_all(int descriptor) {
  std::vector<SampleId> out;
  SampleId id;
  while (::read(descriptor, &id, sizeof(id)) == sizeof(id)) {
    out.push_back(id);
  }
  return out;
}

bool has_temporaries(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with(".tmp-")) {
      return true;
    }
  }
  return false;
}

double median_save_seconds(const fs::path& folder, const SlotTable& slots) {
  std::vector<double> seconds;
  for (int64_t step = 1; step <= 5; ++step) {
    const auto begin = std::chrono::steady_clock::now();
    testing::save_sample(folder, slots, step, 0, kKeep);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

void kill_often(const fs::path& folder, int kills, unsigned seed) {
  const SlotTable slots = testing::sample_slots(2);
  const double one_save = median_save_seconds(folder, slots);
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> moment(0, 1.6 * one_save);
  SampleId newest{5, 0};
  int while_saving = 0;    // kills that left a temporary folder
  int unacknowledged = 0;  // kills after a checkpoint was in place, before it was reported
  int64_t saved = 0;
  for (int64_t life = 1; life <= kills; ++life) {
    CAPTURE(life);
    // In every other life the newest step is saved again, where an older try stands.
    const int64_t first = newest.step + life % 2;
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::close(ends[0]);
      save_forever(folder, slots, first, life, ends[1]);
    }
    ::close(ends[1]);
    std::this_thread::sleep_for(std::chrono::duration<double>(moment(random)));
    REQUIRE(::kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));  // it did not fail before
    const std::vector<SampleId> acknowledged = read_all(ends[0]);
    ::close(ends[0]);

    const SampleId last = acknowledged.empty() ? newest : acknowledged.back();
    const SampleId next{acknowledged.empty() ? first : last.step + 1, life};
    const std::vector<fs::path> all = complete_checkpoints(folder);
    REQUIRE(!all.empty());
    for (const fs::path& path : all) {
      CAPTURE(path.string());
      SampleId id;
      REQUIRE_NOTHROW(id = testing::load_sample(path, slots));
      if (path == all.front()) {
        CAPTURE(last.step);
        CAPTURE(id.step);
        CAPTURE(id.life);
        REQUIRE((id == last || id == next));
        unacknowledged += id == last ? 0 : 1;
        newest = id;
      }
    }
    CHECK(newest_checkpoint(folder) == all.front());
    while_saving += has_temporaries(folder) ? 1 : 0;
    saved += static_cast<int64_t>(acknowledged.size());
  }
  MESSAGE(saved << " checkpoints saved, " << while_saving << " of " << kills
                << " kills during a save, " << unacknowledged << " just after one; "
                << one_save * 1e3 << " ms a save");
  CHECK(while_saving > kills / 4);

  // The next save leaves what it should and nothing else.
  testing::save_sample(folder, slots, newest.step + 1, kills + 1, kKeep);
  CHECK(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == kKeep);
}

TEST_CASE("checkpoint: 100 kills on a disk lose at most the checkpoint being written") {
  const TempFolder temporary;
  kill_often(temporary / "checkpoints", 100, 20240611);
}

// Where nothing waits for a disk, more of the kills strike between the calls than in fsync.
TEST_CASE("checkpoint: 100 kills in memory lose at most the checkpoint being written") {
  const fs::path memory = "/dev/shm";
  if (::access(memory.c_str(), W_OK) != 0) {
    MESSAGE("no " << memory.string() << " here: not tested");
    return;
  }
  const fs::path folder = memory / fmt::format("lithe-kill-{}", ::getpid());
  fs::remove_all(folder);
  kill_often(folder, 100, 7);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace lithe
