#include <cuda_runtime.h>

#include <array>

#include <fmt/format.h>

#include "tensor/core/cuda_check.h"
#include "tensor/core/memory.h"

namespace lithe {
namespace {

constexpr std::string_view kWhere = "device";

class CudaGraph final : public Recording {
 public:
  CudaGraph(cudaGraphExec_t graph, cudaStream_t stream) : graph_(graph), stream_(stream) {}
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  ~CudaGraph() override { cudaGraphExecDestroy(graph_); }
  void launch() override {
    cuda_check(cudaGraphLaunch(graph_, stream_), kWhere, "launching a step");
  }

 private:
  cudaGraphExec_t graph_;
  cudaStream_t stream_;
};

// Owns a stream of its own, so that no other user of the device orders work before or after ours.
class CudaMemory final : public DeviceMemory {
 public:
  explicit CudaMemory(int index) : index_(index) {
    select();
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, index), "reading the device's properties");
    description_ = fmt::format("cuda:{}, {}", index, properties.name);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    for (cudaEvent_t& event : events_) {
      check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
    }
  }
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;
  ~CudaMemory() override {
    cudaSetDevice(index_);
    for (cudaEvent_t event : events_) {
      cudaEventDestroy(event);
    }
    cudaStreamDestroy(stream_);
  }

  DeviceKind kind() const override { return DeviceKind::cuda; }
  std::string description() const override { return description_; }

  int64_t available_bytes() const override {
    select();
    size_t free = 0;
    size_t total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    return static_cast<int64_t>(free);
  }

  void* allocate(int64_t bytes, std::string_view what) override {
    const int64_t available = available_bytes();
    if (bytes > available) {
      refuse(bytes, what, available);
    }
    void* block = nullptr;  // cudaMalloc aligns to 256 bytes at least
    const cudaError_t status = cudaMalloc(&block, static_cast<size_t>(bytes > 0 ? bytes : 1));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // not sticky: the device stays usable
      refuse(bytes, what, available_bytes());
    }
    check(status, "allocating");
    count(bytes);
    return block;
  }
  void release(void* block, int64_t bytes) noexcept override {
    cudaSetDevice(index_);
    cudaFree(block);  // waits for kernels that still use the block
    count(-bytes);
  }

  // The host may reuse its buffer on return, so both directions wait.
  void copy_in(void* device, const void* host, int64_t bytes) override {
    copy(device, host, bytes, cudaMemcpyHostToDevice, "copying to the device");
  }
  void copy_out(void* host, const void* device, int64_t bytes) override {
    copy(host, device, bytes, cudaMemcpyDeviceToHost, "copying from the device");
  }
  void fill(void* device, uint8_t byte, int64_t bytes) override {
    select();
    check(cudaMemsetAsync(device, byte, static_cast<size_t>(bytes), stream_), "filling");
  }
  void synchronize() override {
    select();
    check(cudaStreamSynchronize(stream_), "a kernel");
  }
  void* stream() const override { return stream_; }

  bool asynchronous() const override { return true; }
  void* allocate_host(int64_t bytes) override {
    select();
    void* block = nullptr;
    const cudaError_t status = cudaMallocHost(&block, static_cast<size_t>(bytes > 0 ? bytes : 1));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw MemoryError("memory",
                        "{} bytes of pinned host memory are not to be had; close other "
                        "programs, or lower the batch size",
                        bytes);
    }
    check(status, "allocating pinned host memory");
    return block;
  }
  void release_host(void* block) noexcept override {
    cudaSetDevice(index_);
    cudaFreeHost(block);
  }
  void copy_in_async(void* device, const void* host, int64_t bytes) override {
    select();
    check(
        cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
        "copying to the device");
  }
  void copy_out_async(void* host, const void* device, int64_t bytes) override {
    select();
    check(
        cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
        "copying from the device");
  }
  int64_t mark() override {
    const int64_t ticket = marks_++;
    check(cudaEventRecord(events_[static_cast<size_t>(ticket % kMarks)], stream_), "marking");
    return ticket;
  }
  void wait(int64_t mark) override {
    check(cudaEventSynchronize(events_[static_cast<size_t>(mark % kMarks)]), "a kernel");
  }
  std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    select();
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording");
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);  // the stream must not stay in capture
      if (graph != nullptr) {
        cudaGraphDestroy(graph);
      }
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "recording");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "preparing a recording");
    return std::make_unique<CudaGraph>(executable, stream_);
  }

 private:
  void check(cudaError_t status, std::string_view what) const {
    cuda_check(status, description_.empty() ? kWhere : std::string_view(description_), what);
  }
  // The current device belongs to the thread, not to us.
  void select() const { check(cudaSetDevice(index_), "selecting the device"); }
  void copy(void* to, const void* from, int64_t bytes, cudaMemcpyKind direction,
            std::string_view what) {
    if (bytes == 0) {
      return;
    }
    select();
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), direction, stream_), what);
    check(cudaStreamSynchronize(stream_), what);
  }
  [[noreturn]] void refuse(int64_t bytes, std::string_view what, int64_t available) const {
    throw MemoryError("memory",
                      "{} needs {} bytes, {} has {} free; lower the batch size, use the freeze or "
                      "recompute pass, or close other programs on the device",
                      what, bytes, description_, available);
  }

  int index_;
  std::string description_;
  cudaStream_t stream_ = nullptr;
  std::array<cudaEvent_t, kMarks> events_{};
  int64_t marks_ = 0;
};

}  // namespace

// A machine without a driver or a device answers with an error, which is not one here.
int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

bool cuda_available() { return cuda_device_count() > 0; }

std::shared_ptr<DeviceMemory> cuda_memory(int index) {
  const int count = cuda_device_count();
  if (index < 0 || index >= count) {
    throw DeviceError(kWhere,
                      "cuda:{} was asked for, but this machine has {} CUDA devices that the driver "
                      "can use (see nvidia-smi); use --device cpu{}",
                      index, count, count > 0 ? " or a smaller index" : "");
  }
  return std::make_shared<CudaMemory>(index);
}

}  // namespace lithe
