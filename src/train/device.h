// The --device option: auto, cpu, cuda or cuda:N.
#pragma once

#include <memory>
#include <string>

#include "tensor/core/memory.h"

namespace lithe {

// The kind that a plan is made for; opens no device. `auto`: CUDA where the driver has a device, or
// else the CPU.
DeviceKind planned_device(const std::string& name);

// Opens it; throws UsageError for a malformed name, DeviceError where there is no such device.
std::shared_ptr<DeviceMemory> open_device(const std::string& name);

}  // namespace lithe
