// The proofs the registry program offers, each over the chosen cases.
#pragma once

#include <memory>
#include <set>
#include <vector>

#include "registry/registry.h"
#include "registry/report.h"
#include "tensor/graph/executor.h"

namespace lithe::registry {

struct Device {
  std::shared_ptr<DeviceMemory> memory;
  KernelLookup lookup = nullptr;
};

// Ops that occurred in a graph that ran.
using OpSet = std::set<const OpDef*>;

// Analytic gradients against central differences, in fp64 on the CPU.
void check_gradients(const std::vector<Case>& cases, uint64_t seed, Report& report, OpSet& seen);
// The device against the CPU in fp64 (and fp32), fused ops against their definitions, and memory:
// guards, poison, in-place kernels, planned against spread-out buffers.
void compare(const std::vector<Case>& cases, const Device& device, uint64_t seed, Report& report,
             OpSet& seen);
// Each case once in each dtype, between guards, compared with nothing: for tools that watch the
// kernels at a hundred times their cost (compute-sanitizer). Prints how far it is.
void run_all(const std::vector<Case>& cases, const Device& device, uint64_t seed, Report& report,
             OpSet& seen);
// Time, GB/s and GFLOP/s of the cases and of shapes from real models.
void measure(const std::vector<Case>& cases, const Device& device, uint64_t seed, Report& report);
// Op x device x dtype, proved by running on the CPU and by the kernel table for CUDA.
void list_support(const std::vector<Case>& cases, const std::vector<const OpDef*>& ops,
                  uint64_t seed, Report& report);

// Shapes of BERT- and ViT-sized steps, for `measure` only.
std::vector<Case> perf_cases();
// The same for a GPU.
std::vector<Case> large_perf_cases();
void add_codec_perf_cases(std::vector<Case>& cases);  // a part of them

}  // namespace lithe::registry
