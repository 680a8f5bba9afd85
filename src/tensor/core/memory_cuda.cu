#include <cuda_runtime.h>

#include <array>

#include <fmt/format.h>

#include "tensor/core/cuda_check.h"
#include "tensor/core/memory.h"

namespace lithe {
namespace {

constexpr std::string_view kWhere = "device";

// The kernels are compiled for 90a (cmake/LitheCuda.cmake), which no other card runs.
bool runs_kernels(int index) {
  int major = 0;
  int minor = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index) == cudaSuccess &&
         major == 9 && minor == 0;
}

constexpr uint64_t kHoldNanoseconds = 5'000'000;

__global__ void hold_kernel(uint64_t nanoseconds) {
  uint64_t begin = 0;
  uint64_t now = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
  do {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - begin < nanoseconds);
}

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
    if (!runs_kernels(index)) {
      throw DeviceError(kWhere,
                        "{} has compute capability {}.{}; the kernels are written for 9.0 (H100, "
                        "H200); use --device cpu",
                        description_, properties.major, properties.minor);
    }
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    check(cudaStreamCreateWithFlags(&upload_stream_, cudaStreamNonBlocking), "creating a stream");
    check(cudaStreamCreateWithFlags(&copy_stream_, cudaStreamNonBlocking), "creating a stream");
    for (cudaEvent_t* event : {&fence_, &uploaded_}) {
      check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "creating an event");
    }
    for (cudaEvent_t& event : events_) {
      check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
    }
    size_t free = 0;
    size_t total = 0;
    check(cudaMemGetInfo(&free, &total), "asking for free memory");
    context_bytes_ = static_cast<int64_t>(total - free);
  }
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;
  ~CudaMemory() override {
    cudaSetDevice(index_);
    for (cudaEvent_t event : events_) {
      cudaEventDestroy(event);
    }
    for (cudaEvent_t event : stamps_) {
      cudaEventDestroy(event);
    }
    cudaEventDestroy(fence_);
    cudaEventDestroy(uploaded_);
    cudaStreamDestroy(upload_stream_);
    cudaStreamDestroy(copy_stream_);
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
  void* copy_stream() const override { return copy_stream_; }
  DeviceRates rates() const override {
    const auto attribute = [&](cudaDeviceAttr which) {
      int value = 0;
      check(cudaDeviceGetAttribute(&value, which, index_), "reading the device's properties");
      return static_cast<double>(value);
    };
    // Rates of the memory's clock are in kHz, and it carries data on both edges.
    DeviceRates rates;
    rates.bytes_per_s = 2 * 1e3 * attribute(cudaDevAttrMemoryClockRate) *
                        attribute(cudaDevAttrGlobalMemoryBusWidth) / 8;
    const double clocks =
        1e3 * attribute(cudaDevAttrClockRate) * attribute(cudaDevAttrMultiProcessorCount);
    rates.flops_fp32 = 2 * 128 * clocks;
    // FLOPs a clock of a multiprocessor's tensor cores, 16 bits: Hopper 4,096, Ampere's data-centre
    // chip 2,048, its other chips and Ada 1,024 and 512.
    const int major = static_cast<int>(attribute(cudaDevAttrComputeCapabilityMajor));
    const int minor = static_cast<int>(attribute(cudaDevAttrComputeCapabilityMinor));
    if (major == 9) {
      rates.flops_16_bit = 4096 * clocks;
    } else if (major == 8) {
      rates.flops_16_bit = (minor == 0 ? 2048 : (minor == 9 ? 1024 : 512)) * clocks;
    }
    rates.flops_tf32 = rates.flops_16_bit / 2;
    return rates;
  }
  // All of the device that was taken when the context stood: on a card that others use too, theirs
  // is in it.
  int64_t context_bytes() const override { return context_bytes_; }

  void upload(void* device, const void* host, int64_t bytes) override {
    select();
    check(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                          upload_stream_),
          "copying to the device");
  }
  void fence_uploads() override {
    check(cudaEventRecord(fence_, stream_), "marking");
    check(cudaStreamWaitEvent(upload_stream_, fence_), "ordering copies");
  }
  void join_uploads() override {
    check(cudaEventRecord(uploaded_, upload_stream_), "marking");
    check(cudaStreamWaitEvent(stream_, uploaded_), "ordering copies");
  }
  void copy_within(void* to, const void* from, int64_t bytes) override {
    select();
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_),
          "copying on the device");
  }

  void stamp_begin() override {
    select();
    stamp_count_ = 0;
    // The device is held until launches have run ahead; else their cost on the host would be
    // measured wherever kernels are short.
    hold_kernel<<<1, 1, 0, stream_>>>(kHoldNanoseconds);
    check(cudaGetLastError(), "holding the stream");
    stamp();
  }
  void stamp() override {
    if (stamp_count_ == stamps_.size()) {
      cudaEvent_t event = nullptr;
      check(cudaEventCreate(&event), "creating an event");
      stamps_.push_back(event);
    }
    check(cudaEventRecord(stamps_[stamp_count_++], stream_), "marking");
  }
  std::vector<double> stamp_end() override {
    synchronize();
    std::vector<double> spans;
    for (size_t i = 1; i < stamp_count_; ++i) {
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, stamps_[i - 1], stamps_[i]), "reading a stamp");
      spans.push_back(1e-3 * static_cast<double>(milliseconds));
    }
    return spans;
  }

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
  cudaStream_t upload_stream_ = nullptr;
  cudaStream_t copy_stream_ = nullptr;
  cudaEvent_t fence_ = nullptr;
  cudaEvent_t uploaded_ = nullptr;
  std::array<cudaEvent_t, kMarks> events_{};
  int64_t marks_ = 0;
  std::vector<cudaEvent_t> stamps_;
  size_t stamp_count_ = 0;
  int64_t context_bytes_ = 0;
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

bool cuda_available() { return cuda_device_count() > 0 && runs_kernels(0); }

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
