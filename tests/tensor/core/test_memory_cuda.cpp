// The CUDA backend's memory on a machine with a GPU; its refusals on one without.
#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "tensor/core/error.h"
#include "tensor/core/memory.h"

using namespace lithe;

TEST_CASE("a device that is not there is refused by name") {
  const auto opens = [](int index) {
    try {
      return cuda_memory(index) != nullptr;
    } catch (const DeviceError&) {
      return false;
    }
  };
  CHECK(cuda_available() == opens(0));
  CHECK_THROWS_AS(cuda_memory(cuda_device_count()), DeviceError);
  CHECK_THROWS_AS(cuda_memory(-1), DeviceError);
}

TEST_CASE("blocks on the GPU keep what is written to them") {
  if (!cuda_available()) {
    MESSAGE("no CUDA device: not run");
    return;
  }
  const std::shared_ptr<DeviceMemory> memory = cuda_memory(0);
  REQUIRE(memory->kind() == DeviceKind::cuda);
  CHECK(memory->stream() != nullptr);
  std::vector<int32_t> sent(100003);
  std::iota(sent.begin(), sent.end(), 7);
  const auto bytes = static_cast<int64_t>(sent.size() * sizeof(int32_t));
  {
    const Block block(memory, bytes, "a test");
    CHECK(reinterpret_cast<uintptr_t>(block.data()) % 256 == 0);
    CHECK(memory->used_bytes() == bytes);
    memory->copy_in(block.data(), sent.data(), bytes);
    std::vector<int32_t> received(sent.size(), 0);
    memory->copy_out(received.data(), block.data(), bytes);
    CHECK(received == sent);
    memory->fill(block.data(), 0xff, bytes);
    memory->copy_out(received.data(), block.data(), bytes);
    CHECK(received == std::vector<int32_t>(sent.size(), -1));
    const Block empty(memory, 0, "nothing");
    memory->copy_in(empty.data(), sent.data(), 0);
  }
  memory->synchronize();
  CHECK(memory->used_bytes() == 0);
  CHECK(memory->peak_bytes() == bytes);
}

TEST_CASE("what does not fit on the GPU is refused before it is allocated") {
  if (!cuda_available()) {
    MESSAGE("no CUDA device: not run");
    return;
  }
  const std::shared_ptr<DeviceMemory> memory = cuda_memory(0);
  const int64_t free = memory->available_bytes();
  CHECK(free > 0);
  CHECK_THROWS_AS(memory->allocate(free + (int64_t{1} << 30), "a giant"), MemoryError);
  CHECK(memory->used_bytes() == 0);
  const Block after(memory, 1024, "a small one");  // the device is still usable
  CHECK(after.data() != nullptr);
}
