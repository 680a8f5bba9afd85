// A process that saves checkpoints is killed at random moments, over and over in one folder.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

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

TEST_CASE("checkpoint: 200 kills at random moments lose at most the checkpoint being written") {
  constexpr int kKills = 200;
  const TempFolder temporary;
  const fs::path folder = temporary / "checkpoints";
  const SlotTable slots = testing::sample_slots(2);
  testing::save_sample(folder, slots, 1, 0, kKeep);
  const auto begin = std::chrono::steady_clock::now();
  testing::save_sample(folder, slots, 2, 0, kKeep);
  const std::chrono::duration<double> one_save = std::chrono::steady_clock::now() - begin;

  std::mt19937 random(20240611);
  std::uniform_real_distribution<double> moment(0, 1.6 * one_save.count());
  SampleId newest{2, 0};
  int while_saving = 0;    // kills that left a temporary folder
  int unacknowledged = 0;  // kills after a checkpoint was in place, before it was reported
  int64_t saved = 0;
  for (int64_t life = 1; life <= kKills; ++life) {
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
  MESSAGE(saved << " checkpoints saved, " << while_saving << " of " << kKills
                << " kills during a save, " << unacknowledged << " just after one; "
                << one_save.count() * 1e3 << " ms a save");
  CHECK(while_saving > kKills / 4);

  // The next save leaves what it should and nothing else.
  testing::save_sample(folder, slots, newest.step + 1, kKills + 1, kKeep);
  CHECK(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == kKeep);
}

}  // namespace
}  // namespace lithe
