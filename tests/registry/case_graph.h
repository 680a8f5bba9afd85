// A case built into a graph at one dtype, and a session that runs it on one device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "registry/registry.h"
#include "tensor/graph/executor.h"

namespace lithe::registry {

struct BuildOptions {
  DType dtype = DType::f64;
  bool gradients = true;     // of the first output, with a cotangent that is an input
  int only = -1;             // gradient of this input alone; -1: of all differentiable ones
  bool expanded = false;     // every op that has a definition is replaced by it
  bool chained = false;      // floating inputs pass a scale by 1, so they die in the op and the
                             // kernels that may work in place do
  bool keep_inputs = false;  // inputs outlive the step, so it can be run again without writing them
};

struct CaseGraph {
  std::unique_ptr<SlotTable> slots;
  std::unique_ptr<Graph> graph;
  std::vector<ValueId> inputs;  // the leaves
  std::vector<ValueId> outputs;
  ValueId cotangent = kNoValue;    // leaf; kNoValue: not differentiated
  std::vector<ValueId> gradients;  // by input; kNoValue: none
};

// Builds and verifies. Whatever the op's rules throw passes through.
CaseGraph build_case(const Case& c, const BuildOptions& options);

// The random gradient from above, of output `like`'s shape and dtype.
Tensor make_cotangent(const CaseGraph& built, uint64_t seed);

struct Result {
  std::string name;  // "output 0", "gradient of input 1", "slot 2"
  Tensor value;
};

class Session {
 public:
  // `guarded`: nothing shares memory (but views and in-place successors), and 256 bytes lie
  // unused around every buffer.
  Session(const CaseGraph& built, std::shared_ptr<DeviceMemory> memory, KernelLookup lookup,
          bool guarded = false);

  void write(const std::vector<Tensor>& inputs, const Tensor& cotangent);
  void write_input(size_t i, const Tensor& value);
  void run() { executor_.run(program_); }
  void run_poisoned() { executor_.run_poisoned(program_); }
  // Rounds what each node writes to the dtype that `like`, a graph of the same nodes, has there.
  void run_rounded(const Graph& like);
  // All NaN before anything is written.
  void poison() { executor_.mark_arena(kPoison); }
  // After a run: bytes changed outside of every buffer.
  int64_t bytes_written_outside() const;

  Tensor read(ValueId v) const { return executor_.read(program_, v); }
  std::vector<Result> results() const;
  const Plan& plan() const { return plan_; }
  Executor& executor() { return executor_; }
  const Program& program() const { return program_; }

 private:
  static constexpr uint8_t kPoison = 0xff;

  const CaseGraph& built_;
  Plan plan_;
  Executor executor_;
  Program program_;
};

}  // namespace lithe::registry
