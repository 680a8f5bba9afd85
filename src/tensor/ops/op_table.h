// The op table: every op by name, and the kernels of each device. Registration of an op is its line
// in op_table.cpp, of its CUDA kernel the line in kernels_cuda.cu.
#pragma once

#include <span>
#include <string_view>

#include "tensor/graph/executor.h"

namespace lithe {

std::span<const OpDef* const> op_table();
const OpDef* find_op(std::string_view name);  // nullptr when unknown

DeviceKernel cpu_kernel(const OpDef& op);
DeviceKernel cuda_kernel(const OpDef& op);  // none where the build has no CUDA or the op no kernel
KernelLookup kernel_lookup(DeviceKind device);

}  // namespace lithe
