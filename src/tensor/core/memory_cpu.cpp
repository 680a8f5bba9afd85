#include <unistd.h>

#include <cstring>
#include <fstream>
#include <new>
#include <thread>

#include <fmt/format.h>
#include <omp.h>

#include "tensor/core/error.h"
#include "tensor/core/memory.h"

namespace lithe {
namespace {

constexpr std::align_val_t kAlignment{256};

class CpuMemory final : public DeviceMemory {
 public:
  DeviceKind kind() const override { return DeviceKind::cpu; }
  std::string description() const override {
    return fmt::format("cpu, {} threads", omp_get_max_threads());
  }

  // MemAvailable counts reclaimable page cache; sysconf would not.
  int64_t available_bytes() const override {
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
  void synchronize() override {}
};

}  // namespace

std::shared_ptr<DeviceMemory> cpu_memory() { return std::make_shared<CpuMemory>(); }

}  // namespace lithe
