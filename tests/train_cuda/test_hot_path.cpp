// What a training step asks of the CUDA runtime: the linker leads the calls through here (--wrap in
// tests/CMakeLists.txt). Libraries call the driver on their own, but only while the first run of a
// step loads them: later runs replay a recording.
#include <doctest/doctest.h>

#include <map>
#include <mutex>

#include "train/input_stage.h"
#include "train/text_run.h"
#include "train/tiny_run.h"

using namespace lithe;           // NOLINT
using namespace lithe::testing;  // NOLINT

namespace {

struct Calls {
  int allocations = 0;
  int waits = 0;  // for the whole stream or device
  int event_waits = 0;
  int pageable = 0;  // copies whose host side is not pinned
  int copies = 0;
  int launches = 0;  // of recordings
};

std::mutex g_mutex;
Calls g_calls;
std::map<const std::byte*, size_t> g_pinned;

void count(int Calls::*which) {
  const std::lock_guard lock(g_mutex);
  ++(g_calls.*which);
}

void count_copy(const void* to, const void* from, int kind) {
  constexpr int kHostToDevice = 1;
  constexpr int kDeviceToHost = 2;
  const std::lock_guard lock(g_mutex);
  ++g_calls.copies;
  if (kind != kHostToDevice && kind != kDeviceToHost) {
    return;
  }
  const auto* host = static_cast<const std::byte*>(kind == kHostToDevice ? from : to);
  auto block = g_pinned.upper_bound(host);
  if (block == g_pinned.begin() || host >= std::prev(block)->first + std::prev(block)->second) {
    ++g_calls.pageable;
  }
}

Calls take() {
  const std::lock_guard lock(g_mutex);
  return std::exchange(g_calls, Calls{});
}

}  // namespace

// The runtime's functions, by their C interface: errors and kinds are enums of int.
extern "C" {
int __real_cudaMalloc(void** block, size_t bytes);                                    // NOLINT
int __real_cudaMallocAsync(void** block, size_t bytes, void* stream);                 // NOLINT
int __real_cudaFree(void* block);                                                     // NOLINT
int __real_cudaMallocHost(void** block, size_t bytes);                                // NOLINT
int __real_cudaFreeHost(void* block);                                                 // NOLINT
int __real_cudaStreamSynchronize(void* stream);                                       // NOLINT
int __real_cudaDeviceSynchronize();                                                   // NOLINT
int __real_cudaEventSynchronize(void* event);                                         // NOLINT
int __real_cudaMemcpy(void* to, const void* from, size_t bytes, int kind);            // NOLINT
int __real_cudaMemcpyAsync(void* to, const void* from, size_t n, int kind, void* s);  // NOLINT
int __real_cudaGraphLaunch(void* graph, void* stream);                                // NOLINT

int __wrap_cudaMalloc(void** block, size_t bytes) {  // NOLINT
  count(&Calls::allocations);
  return __real_cudaMalloc(block, bytes);
}
int __wrap_cudaMallocAsync(void** block, size_t bytes, void* stream) {  // NOLINT
  count(&Calls::allocations);
  return __real_cudaMallocAsync(block, bytes, stream);
}
int __wrap_cudaFree(void* block) {  // NOLINT
  count(&Calls::allocations);
  return __real_cudaFree(block);
}
int __wrap_cudaMallocHost(void** block, size_t bytes) {  // NOLINT
  count(&Calls::allocations);
  const int status = __real_cudaMallocHost(block, bytes);
  if (status == 0) {
    const std::lock_guard lock(g_mutex);
    g_pinned[static_cast<const std::byte*>(*block)] = bytes;
  }
  return status;
}
int __wrap_cudaFreeHost(void* block) {  // NOLINT
  count(&Calls::allocations);
  const std::lock_guard lock(g_mutex);
  g_pinned.erase(static_cast<const std::byte*>(block));
  return __real_cudaFreeHost(block);
}
int __wrap_cudaStreamSynchronize(void* stream) {  // NOLINT
  count(&Calls::waits);
  return __real_cudaStreamSynchronize(stream);
}
int __wrap_cudaDeviceSynchronize() {  // NOLINT
  count(&Calls::waits);
  return __real_cudaDeviceSynchronize();
}
int __wrap_cudaEventSynchronize(void* event) {  // NOLINT
  count(&Calls::event_waits);
  return __real_cudaEventSynchronize(event);
}
int __wrap_cudaMemcpy(void* to, const void* from, size_t bytes, int kind) {  // NOLINT
  count(&Calls::waits);
  return __real_cudaMemcpy(to, from, bytes, kind);
}
int __wrap_cudaMemcpyAsync(void* to, const void* from, size_t n, int kind, void* s) {  // NOLINT
  count_copy(to, from, kind);
  return __real_cudaMemcpyAsync(to, from, n, kind, s);
}
int __wrap_cudaGraphLaunch(void* graph, void* stream) {  // NOLINT
  count(&Calls::launches);
  return __real_cudaGraphLaunch(graph, stream);
}
}

TEST_CASE("a training step on CUDA neither allocates nor waits, and copies from pinned memory") {
  if (!cuda_available()) {
    MESSAGE("no CUDA device: not run");
    return;
  }
  const TextFolder files("hot_path");
  const recipe::Recipe recipe = tiny_recipe({"train.clip_norm=1", "train.compute=bf16"});
  const std::shared_ptr<DeviceMemory> memory = cuda_memory(0);
  Experiment experiment(recipe, memory->kind());
  Executor executor(memory, kernel_lookup(memory->kind()), experiment.slots());
  const StepGraph& step = experiment.update_step();
  const Program program = executor.bind(*step.graph, step.plan);
  StepRunner runner(executor, input_stage_bytes(step, memory->kind()));
  const TrainingData data = open_training_data(recipe, experiment.model());
  LoaderOptions options;
  options.batch_size = step.shape.batch;
  options.drop_last = true;
  Loader loader(data.train, options);
  loader.start(0, 0, 20);
  const auto run = [&](int count) {
    for (int i = 0; i < count; ++i) {
      runner.launch(step, program, *loader.next(), {.step = i, .seed = 1, .draw = i, .lr = 1e-3});
      if (runner.open() > runner.ahead()) {
        runner.collect();
      }
    }
  };
  run(4);  // the first runs load kernels and record
  take();
  run(10);
  const Calls calls = take();
  CHECK(calls.allocations == 0);
  CHECK(calls.waits == 0);
  CHECK(calls.pageable == 0);
  CHECK(calls.launches == 10);
  CHECK(calls.event_waits == 10);  // one a step, for the step before
  CHECK(calls.copies > 10);
}
