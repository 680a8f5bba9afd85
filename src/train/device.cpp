#include "train/device.h"

#include <algorithm>
#include <charconv>

#include "tensor/core/error.h"

namespace lithe {
namespace {

// Index of "cuda" or "cuda:N"; -1 for another name.
int cuda_index(const std::string& name) {
  if (name == "cuda") {
    return 0;
  }
  int index = -1;
  if (name.starts_with("cuda:")) {
    const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), index);
    if (error != std::errc() || end != name.data() + name.size() || index < 0) {
      return -1;
    }
  }
  return index;
}

}  // namespace

DeviceKind planned_device(const std::string& name) {
  if (name == "auto") {
    return cuda_available() ? DeviceKind::cuda : DeviceKind::cpu;
  }
  if (name == "cpu") {
    return DeviceKind::cpu;
  }
  if (cuda_index(name) < 0) {
    throw UsageError("--device", "'{}' is no device; write auto, cpu, cuda or cuda:N", name);
  }
  return DeviceKind::cuda;
}

std::shared_ptr<DeviceMemory> open_device(const std::string& name) {
  return planned_device(name) == DeviceKind::cpu ? cpu_memory()
                                                 : cuda_memory(std::max(0, cuda_index(name)));
}

}  // namespace lithe
