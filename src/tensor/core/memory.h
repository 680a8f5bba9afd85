// Device memory behind one interface. The engine asks for few, large blocks: the persistent block
// (weights, optimizer state) and the arena; `used` and `peak` are what the plan is compared with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lithe {

enum class DeviceKind : uint8_t { cpu, cuda };

// Work that was recorded once and runs again on the same addresses: on CUDA a graph, launched as a
// whole.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void launch() = 0;
};

// What a device can do at most, by its clocks; 0: unknown. Dense products, two FLOPs for each
// multiplication with its addition.
struct DeviceRates {
  double bytes_per_s = 0;
  double flops_16_bit = 0;
  double flops_tf32 = 0;
  double flops_fp32 = 0;
};

class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;

  virtual DeviceKind kind() const = 0;
  virtual std::string description() const = 0;  // "cpu, 2 threads", "NVIDIA H100 80GB HBM3"
  virtual int64_t available_bytes() const = 0;  // what a new allocation may take

  // 256-byte aligned, not initialised; throws MemoryError, naming `what`, when it does not fit.
  virtual void* allocate(int64_t bytes, std::string_view what) = 0;
  virtual void release(void* block, int64_t bytes) noexcept = 0;

  virtual void copy_in(void* device, const void* host, int64_t bytes) = 0;
  virtual void copy_out(void* host, const void* device, int64_t bytes) = 0;
  virtual void fill(void* device, uint8_t byte, int64_t bytes) = 0;
  virtual void synchronize() = 0;
  virtual void* stream() const { return nullptr; }  // cudaStream_t on CUDA
  // For a step's own copies to and from host memory, beside its kernels.
  virtual void* copy_stream() const { return nullptr; }
  virtual DeviceRates rates() const { return {}; }
  // What the driver and the libraries took before the first block, as far as it can be told.
  virtual int64_t context_bytes() const { return 0; }

  // Whether work only starts when it is asked for, so that the host can run ahead of the device.
  virtual bool asynchronous() const { return false; }
  // Host memory for the copies below: pinned, where that makes them run beside the host. 256-byte
  // aligned; throws MemoryError. The host leaves its side of a copy alone until a mark that was set
  // behind the copy, or behind the join of an upload, has been reached.
  virtual void* allocate_host(int64_t bytes) = 0;
  virtual void release_host(void* block) noexcept = 0;
  // In order with all other work of this device.
  virtual void copy_out_async(void* host, const void* device, int64_t bytes) {
    copy_out(host, device, bytes);
  }
  // To the device beside its work, not in order with it. The copy starts once all work that was
  // asked for before the last `fence_uploads` is done; work asked for after `join_uploads` waits
  // for all copies so far.
  virtual void upload(void* device, const void* host, int64_t bytes) {
    copy_in(device, host, bytes);
  }
  virtual void fence_uploads() {}
  virtual void join_uploads() {}
  // Between places of the device, in order with its work.
  virtual void copy_within(void* to, const void* from, int64_t bytes) = 0;
  // A point behind all work asked for so far; at most kMarks may be open.
  static constexpr int64_t kMarks = 8;
  virtual int64_t mark() { return 0; }
  virtual void wait(int64_t /*mark*/) {}
  // Records what `work` asks for without running it; null where the device cannot. `work` calls
  // kernels only.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& /*work*/) {
    return nullptr;
  }

  // The device's own clock: `stamp_end` waits, and returns the seconds from the begin to the first
  // stamp, from that to the second, and so on.
  virtual void stamp_begin() = 0;
  virtual void stamp() = 0;
  virtual std::vector<double> stamp_end() = 0;

  int64_t used_bytes() const { return used_; }
  int64_t peak_bytes() const { return peak_; }

 protected:
  void count(int64_t delta) {
    used_ += delta;
    peak_ = used_ > peak_ ? used_ : peak_;
  }

 private:
  int64_t used_ = 0;
  int64_t peak_ = 0;
};

std::shared_ptr<DeviceMemory> cpu_memory();
// Throws DeviceError where the build or the machine has no CUDA device of that index, or one that
// the kernels were not compiled for.
std::shared_ptr<DeviceMemory> cuda_memory(int index);
// Whether cuda_memory(0) has a device.
bool cuda_available();
int cuda_device_count();

// One block of device memory, released with its owner.
class Block {
 public:
  Block() = default;
  Block(std::shared_ptr<DeviceMemory> memory, int64_t bytes, std::string_view what)
      : memory_(std::move(memory)), data_(memory_->allocate(bytes, what)), bytes_(bytes) {}
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  Block(Block&& other) noexcept { swap(other); }
  Block& operator=(Block&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Block() {
    if (data_ != nullptr) {
      memory_->release(data_, bytes_);
    }
  }

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(Block& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  std::shared_ptr<DeviceMemory> memory_;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Host memory of a device's asynchronous copies, released with its owner.
class HostBlock {
 public:
  HostBlock() = default;
  HostBlock(std::shared_ptr<DeviceMemory> memory, int64_t bytes)
      : memory_(std::move(memory)), data_(memory_->allocate_host(bytes)), bytes_(bytes) {}
  HostBlock(const HostBlock&) = delete;
  HostBlock& operator=(const HostBlock&) = delete;
  HostBlock(HostBlock&& other) noexcept { swap(other); }
  HostBlock& operator=(HostBlock&& other) noexcept {
    swap(other);
    return *this;
  }
  ~HostBlock() {
    if (data_ != nullptr) {
      memory_->release_host(data_);
    }
  }

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(HostBlock& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  std::shared_ptr<DeviceMemory> memory_;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace lithe
