// Runs planned graphs on one device: two blocks of memory, the slots and the arena, each allocated
// once; a step is then a list of kernel calls with fixed addresses.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "tensor/core/memory.h"
#include "tensor/graph/plan.h"

namespace lithe {

// Finds the kernels of an op on a device.
using KernelLookup = DeviceKernel (*)(const OpDef&);

class Executor;

// A planned graph bound to an executor's memory. Valid while the executor lives and its blocks
// stay.
class Program {
 public:
  const Graph& graph() const { return *graph_; }
  const Plan& plan() const { return *plan_; }

 private:
  friend class Executor;
  const Graph* graph_ = nullptr;
  const Plan* plan_ = nullptr;
  std::vector<TensorRef> refs_;
  std::vector<DeviceKernel> kernels_;  // by position, as are the arguments
  std::vector<KernelArgs> args_;
  // How the calls have run so far; not part of what the program is.
  mutable std::unique_ptr<Recording> recording_;
  mutable bool warm_ = false;
};

class Executor {
 public:
  // Allocates the slot block. `lookup` is the device's kernel table.
  Executor(std::shared_ptr<DeviceMemory> memory, KernelLookup lookup, const SlotTable& slots);

  // Makes the arena at least this large; existing programs become invalid when it grows.
  void reserve_arena(int64_t bytes);
  // The same of the block in host memory; existing programs keep the one that they have.
  void reserve_host(int64_t bytes);
  // Both must outlive the program. Throws DeviceError naming an op without a kernel on this device.
  Program bind(const Graph& graph, const Plan& plan);

  void write_slot(SlotId slot, const Tensor& value);  // shapes and dtypes must match
  Tensor read_slot(SlotId slot) const;
  TensorRef slot(SlotId slot) const;  // of one on the device
  void write(const Program& program, ValueId value, const Tensor& data);
  Tensor read(const Program& program, ValueId value) const;
  TensorRef ref(const Program& program, ValueId value) const;
  // To pinned host memory, in order with the steps and without waiting for them
  // (DeviceMemory::copy_out_async).
  void read_async(const Program& program, ValueId value, void* host) const;

  // Where the device can record, the second run is recorded, and later ones replay it: the first
  // lets libraries load and choose their kernels.
  void run(const Program& program);
  // Only the nodes at the plan's positions [begin, end).
  void run(const Program& program, int begin, int end);
  // Runs once, each node or group measured by the device's own clock; seconds by position, a
  // group's at its first. For profiles: the stamps between kernels take some time themselves.
  std::vector<double> run_profiled(const Program& program);
  // Fills every buffer with NaN bytes before it is written and after its last use, so that a read
  // outside a value's life shows in the results. Slow; for tests.
  void run_poisoned(const Program& program);

  // Fills the arena with `byte`; the highest byte changed by later steps, counted from its start.
  void mark_arena(uint8_t byte);
  int64_t touched_arena_bytes(uint8_t byte) const;

  DeviceMemory& memory() const { return *memory_; }
  const std::shared_ptr<DeviceMemory>& shared_memory() const { return memory_; }
  int64_t slot_block_bytes() const { return slots_block_.bytes(); }
  int64_t arena_bytes() const { return arena_.bytes(); }
  int64_t host_bytes() const { return host_.empty() ? 0 : host_.back().bytes(); }

 private:
  TensorRef address(const Graph& graph, const Plan& plan, ValueId v) const;
  // The node or group at `position`, as far as `end`; returns the position behind it.
  static int run_at(const Program& program, int position, int end);

  std::shared_ptr<DeviceMemory> memory_;
  KernelLookup lookup_;
  const SlotTable* slots_;
  std::vector<int64_t> slot_offset_;
  std::vector<Tensor> host_slots_;  // by slot; of those that lie there
  Block slots_block_;
  Block arena_;
  std::vector<HostBlock> host_;  // the last is in use; programs may still be bound to others
};

}  // namespace lithe
