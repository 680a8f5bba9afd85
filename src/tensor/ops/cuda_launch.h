// Launches of kernels whose shared memory is sized by the launch. Device-only.
#pragma once

#include "tensor/core/cuda_check.h"
#include "tensor/graph/op.h"

namespace lithe::device {

// kernel(params); more than 48 KiB a block must be allowed for each kernel first.
template <typename Params>
void launch_shared(const KernelArgs& args, void (*kernel)(Params), unsigned blocks, int threads,
                   size_t shared_bytes, const Params& params) {
  constexpr size_t kAlwaysAllowed = 32 * 1024;  // 48 KiB, less what a kernel declares by itself
  if (shared_bytes > kAlwaysAllowed) {
    cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               args.op, "reserving shared memory");
  }
  kernel<<<blocks, threads, shared_bytes, static_cast<cudaStream_t>(args.stream)>>>(params);
  check_launch(args.op);
}

}  // namespace lithe::device
