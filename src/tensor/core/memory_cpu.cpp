#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <thread>

#include <fmt/format.h>
#include <omp.h>

#include "tensor/core/error.h"
#include "tensor/core/memory.h"

namespace lithe {
namespace {

constexpr std::align_val_t kAlignment{256};

// MemAvailable counts reclaimable page cache; sysconf would not.
int64_t machine_bytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  int64_t kib = 0;
  std::string unit;
  while (meminfo >> key >> kib >> unit) {
    if (key == "MemAvailable:") {
      return kib * 1024;
    }
  }
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
}

// A number in a file, or -1 where there is none ("max", no such file).
int64_t number_in(const std::string& path) {
  std::ifstream in(path);
  int64_t value = 0;
  return in >> value ? value : -1;
}

// Page cache of files counts as used, but is given back when memory is short.
int64_t reclaimable_bytes(const std::string& stat_path) {
  std::ifstream in(stat_path);
  std::string key;
  int64_t value = 0;
  int64_t sum = 0;
  while (in >> key >> value) {
    sum += key == "active_file" || key == "inactive_file" ? value : 0;
  }
  return sum;
}

// What containers and service managers leave to this process (control groups, version 2).
int64_t cgroup_bytes() {
  std::ifstream self("/proc/self/cgroup");
  std::string line;
  int64_t least = INT64_MAX;
  while (std::getline(self, line)) {
    if (line.rfind("0::", 0) != 0) {
      continue;
    }
    // A limit of any group above holds as well.
    std::string group = line.substr(3);
    while (true) {
      const std::string folder = "/sys/fs/cgroup" + group;
      const int64_t limit = number_in(folder + "/memory.max");
      const int64_t used = number_in(folder + "/memory.current");
      if (limit >= 0 && used >= 0) {
        const int64_t needed = used - reclaimable_bytes(folder + "/memory.stat");
        least = std::min(least, std::max<int64_t>(0, limit - std::max<int64_t>(0, needed)));
      }
      if (group.size() <= 1) {
        break;
      }
      group.resize(std::max<size_t>(1, group.rfind('/')));
    }
  }
  return least;
}

class CpuMemory final : public DeviceMemory {
 public:
  DeviceKind kind() const override { return DeviceKind::cpu; }
  std::string description() const override {
    return fmt::format("cpu, {} threads", omp_get_max_threads());
  }

  int64_t available_bytes() const override { return std::min(machine_bytes(), cgroup_bytes()); }
  void* allocate(int64_t bytes, std::string_view what) override {
    const int64_t available = available_bytes();
    if (bytes > available) {
      throw MemoryError(
          "memory",
          "{} needs {} bytes, {} has {} free; lower the batch size, or use the freeze "
          "or recompute pass",
          what, bytes, description(), available);
    }
    void* block = ::operator new(static_cast<size_t>(bytes > 0 ? bytes : 1), kAlignment);
    count(bytes);
    return block;
  }
  void release(void* block, int64_t bytes) noexcept override {
    ::operator delete(block, kAlignment);
    count(-bytes);
  }
  void copy_in(void* device, const void* host, int64_t bytes) override {
    std::memcpy(device, host, static_cast<size_t>(bytes));
  }
  void copy_out(void* host, const void* device, int64_t bytes) override {
    std::memcpy(host, device, static_cast<size_t>(bytes));
  }
  void fill(void* device, uint8_t byte, int64_t bytes) override {
    std::memset(device, byte, static_cast<size_t>(bytes));
  }
  void copy_within(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void synchronize() override {}
  void stamp_begin() override { stamps_ = {Clock::now()}; }
  void stamp() override { stamps_.push_back(Clock::now()); }
  std::vector<double> stamp_end() override {
    std::vector<double> spans;
    for (size_t i = 1; i < stamps_.size(); ++i) {
      spans.push_back(std::chrono::duration<double>(stamps_[i] - stamps_[i - 1]).count());
    }
    return spans;
  }
  void* allocate_host(int64_t bytes) override {
    return ::operator new(static_cast<size_t>(bytes > 0 ? bytes : 1), kAlignment);
  }
  void release_host(void* block) noexcept override { ::operator delete(block, kAlignment); }

 private:
  using Clock = std::chrono::steady_clock;
  std::vector<Clock::time_point> stamps_;
};

}  // namespace

std::shared_ptr<DeviceMemory> cpu_memory() { return std::make_shared<CpuMemory>(); }

}  // namespace lithe
