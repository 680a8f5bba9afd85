#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tensor/core/memory.h"
#include "tensor/core/memory_class.h"
#include "tensor/core/tensor.h"

using namespace lithe;

TEST_CASE("a new tensor is zero, aligned and of its dtype only") {
  Tensor t(DType::f32, {3, 5});
  CHECK(t.numel() == 15);
  CHECK(t.bytes() == 60);
  CHECK(reinterpret_cast<uintptr_t>(t.data()) % 64 == 0);
  const auto values = t.as<float>();
  CHECK(std::all_of(values.begin(), values.end(), [](float v) { return v == 0; }));
  CHECK_THROWS_AS(t.as<double>(), ShapeError);
  CHECK_FALSE(Tensor().defined());
  CHECK(Tensor(DType::f32, {0}).as<float>().empty());
}

TEST_CASE("from copies and checks the number of values") {
  const Tensor t = Tensor::from<int64_t>({2, 2}, std::vector<int64_t>{1, -2, 3, 4});
  CHECK(t.dtype() == DType::i64);
  CHECK(t.as<int64_t>()[1] == -2);
  CHECK_THROWS_AS(Tensor::from<float>({3}, std::vector<float>{1, 2}), ShapeError);
}

TEST_CASE("reshaped shares storage, clone does not") {
  Tensor t = Tensor::from<float>({2, 3}, std::vector<float>{0, 1, 2, 3, 4, 5});
  Tensor view = t.reshaped({3, 2});
  Tensor copy = t.clone();
  t.as<float>()[4] = 9;
  CHECK(view.as<float>()[4] == 9);
  CHECK(copy.as<float>()[4] == 4);
  CHECK_THROWS_AS(t.reshaped({4}), ShapeError);
}

TEST_CASE("to converts between every pair of whole-byte dtypes") {
  const std::vector<double> small = {0, 1, 2, 3, 100};
  const Tensor source = Tensor::from<double>({5}, small);
  for (int a = 0; a < kDTypeCount - 1; ++a) {
    for (int b = 0; b < kDTypeCount - 1; ++b) {
      const auto from = static_cast<DType>(a);
      const auto to = static_cast<DType>(b);
      const Tensor out = source.to(from).to(to);
      CHECK(out.dtype() == to);
      const Tensor back = out.to(DType::f64);
      for (size_t i = 0; i < small.size(); ++i) {
        const bool logical = from == DType::boolean || to == DType::boolean;
        CHECK(back.as<double>()[i] == (logical ? (small[i] != 0 ? 1.0 : 0.0) : small[i]));
      }
    }
  }
}

TEST_CASE("to rounds to nearest even and refuses packed int4") {
  const Tensor x =
      Tensor::from<double>({4}, std::vector<double>{1 + 0x1p-8, 1 + 0x1.8p-7, 1e9, -1e-30});
  const Tensor h = x.to(DType::bf16).to(DType::f64);
  CHECK(h.as<double>()[0] == 1.0);
  CHECK(h.as<double>()[1] == 1 + 0x1p-6);
  const Tensor f = x.to(DType::f16).to(DType::f64);
  CHECK(std::isinf(f.as<double>()[2]));
  CHECK(f.as<double>()[3] == 0);
  CHECK(std::signbit(f.as<double>()[3]));
  CHECK_THROWS_AS(x.to(DType::i4), ShapeError);
  // The same dtype shares storage.
  CHECK(x.to(DType::f64).data() == x.data());
}

TEST_CASE("CPU memory counts what is allocated and refuses what does not fit, with both sizes") {
  const auto memory = cpu_memory();
  CHECK(memory->kind() == DeviceKind::cpu);
  {
    const Block a(memory, 1000, "a");
    CHECK(reinterpret_cast<uintptr_t>(a.data()) % 256 == 0);
    CHECK(memory->used_bytes() == 1000);
    {
      const Block b(memory, 500, "b");
      CHECK(memory->used_bytes() == 1500);
    }
    CHECK(memory->used_bytes() == 1000);
    Block moved;
    moved = Block(memory, 24, "c");
    CHECK(memory->used_bytes() == 1024);
  }
  CHECK(memory->used_bytes() == 0);
  CHECK(memory->peak_bytes() == 1500);
  constexpr int64_t kTooMuch = int64_t{1} << 60;
  try {
    memory->allocate(kTooMuch, "the arena");
    FAIL("an allocation of 2^60 bytes passed");
  } catch (const MemoryError& e) {
    const std::string text = e.what();
    CHECK(text.find("the arena") != std::string::npos);
    CHECK(text.find(std::to_string(kTooMuch)) != std::string::npos);
    CHECK(e.code() == ExitCode::kMemory);
  }
  CHECK(memory->used_bytes() == 0);
}

TEST_CASE("memory classes have unique names that round trip") {
  for (int i = 0; i < kMemoryClassCount; ++i) {
    const auto cls = static_cast<MemoryClass>(i);
    CHECK(memory_class_from_name(memory_class_name(cls)) == cls);
  }
  CHECK_FALSE(memory_class_from_name("activations").has_value());
}
