#include "tensor/ops/blas_algorithms_cuda.h"

#include <cublasLt.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <vector>

#include "tensor/core/cuda_check.h"
#include "tensor/ops/cuda_owned.h"

namespace lithe::blas_cuda {
namespace {

constexpr std::string_view kRivalName = "apart";

// Milliseconds of the device: to raise its clocks, to try all, and to try the best again.
constexpr float kWarmUp = 2;
constexpr float kFirstRound = 10;
constexpr float kLastRound = 8;
constexpr float kAtOnce = 0.1f;  // short runs are timed several at once
constexpr size_t kFinalists = 3;

using Event = device::Owned<cudaEvent_t, cudaEventDestroy>;

class Stopwatch {
 public:
  Stopwatch(cudaStream_t stream, std::string_view op) : stream_(stream), op_(op) {
    for (Event* event : {&begin_, &end_}) {
      cudaEvent_t raw = nullptr;
      cuda_check(cudaEventCreate(&raw), op_, "an event");
      event->reset(raw);
    }
  }

  // Milliseconds of one of `count` runs.
  template <typename Work>
  float time(int count, Work&& work) {
    cuda_check(cudaEventRecord(begin_.get(), stream_), op_, "starting a measurement");
    for (int i = 0; i < count; ++i) {
      work();
    }
    cuda_check(cudaEventRecord(end_.get(), stream_), op_, "ending a measurement");
    cuda_check(cudaEventSynchronize(end_.get()), op_, "measuring");
    float all = 0;
    cuda_check(cudaEventElapsedTime(&all, begin_.get(), end_.get()), op_, "measuring");
    spent_ += all;
    return all / static_cast<float>(count);
  }
  float spent() const { return spent_; }

 private:
  cudaStream_t stream_;
  std::string_view op_;
  Event begin_, end_;
  float spent_ = 0;
};

int runs_at_once(float milliseconds) {
  return std::clamp(static_cast<int>(kAtOnce / std::max(milliseconds, 0.001f)), 1, 16);
}

struct Runner {
  int algorithm = 0;
  float first = 0;  // milliseconds in the first round
  std::vector<float> times;

  float median() {
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
  }
};

std::optional<int> find_name(const Contest& contest, std::string_view name) {
  if (name == kRivalName) {
    return contest.may_do_without ? std::optional(kRival) : std::nullopt;
  }
  const auto at = std::find(contest.names.begin(), contest.names.end(), name);
  return at == contest.names.end() ? std::nullopt
                                   : std::optional(static_cast<int>(at - contest.names.begin()));
}

}  // namespace

int fastest(const Contest& contest) {
  Stopwatch watch(contest.stream, contest.op);
  const auto run = [&](int algorithm) {
    if (algorithm != kRival) {
      return contest.run(algorithm);
    }
    contest.rival();
    return true;
  };
  std::vector<Runner> runners;
  const int count = static_cast<int>(contest.names.size());
  for (int i = contest.rival ? kRival : 0; i < count && watch.spent() < kFirstRound; ++i) {
    // The first run loads the kernel, and shows whether there is one.
    if (!run(i)) {
      continue;
    }
    const auto work = [&] { run(i); };
    float once = watch.time(1, work);
    while (runners.empty() && watch.spent() < kWarmUp) {
      once = watch.time(runs_at_once(once), work);
    }
    runners.push_back({i, watch.time(runs_at_once(once), work), {}});
  }
  if (runners.empty()) {
    return 0;
  }
  // The best of the first round meet in turn, so that the device's clocks treat them alike.
  std::stable_sort(runners.begin(), runners.end(),
                   [](const Runner& a, const Runner& b) { return a.first < b.first; });
  runners.resize(std::min(runners.size(), kFinalists));
  float turn = 0;
  for (const Runner& r : runners) {
    turn += r.first * static_cast<float>(runs_at_once(r.first));
  }
  const int turns = std::clamp(static_cast<int>(kLastRound / std::max(turn, 0.001f)), 1, 9);
  for (int t = 0; t < turns; ++t) {
    for (Runner& r : runners) {
      r.times.push_back(watch.time(runs_at_once(r.first), [&] { run(r.algorithm); }));
    }
  }
  return std::min_element(runners.begin(), runners.end(),
                          [](Runner& a, Runner& b) { return a.median() < b.median(); })
      ->algorithm;
}

int Choices::choose(const Contest& contest, int device, bool may_measure) {
  AlgorithmCache& cache = cache_of(device, contest.op);
  const std::string* kept = cache.find(contest.problem);
  std::string unknown;
  if (kept != nullptr) {
    if (const auto known = find_name(contest, *kept)) {
      return *known;
    }
    unknown = *kept;
  }
  if (!may_measure || !cache.can_keep()) {
    return 0;
  }
  const int best = fastest(contest);
  const std::string name =
      best == kRival ? std::string(kRivalName) : contest.names[static_cast<size_t>(best)];
  const std::optional<std::string> now = cache.keep(contest.problem, name, unknown);
  return now ? find_name(contest, *now).value_or(0) : 0;
}

AlgorithmCache& Choices::cache_of(int device, std::string_view op) {
  if (const auto known = caches_.find(device); known != caches_.end()) {
    return known->second;
  }
  cudaDeviceProp gpu{};
  cuda_check(cudaGetDeviceProperties(&gpu, device), op, "asking for the device's name");
  std::string name = fmt::format("products {} {} {}.json", gpu.name, gpu.multiProcessorCount,
                                 cublasLtGetVersion());
  for (char& c : name) {
    c = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' ? c : '-';
  }
  std::filesystem::path folder = cache_folder();
  return caches_.try_emplace(device, folder.empty() ? folder : folder / name).first->second;
}

}  // namespace lithe::blas_cuda
